"""What goes over the network, as pure functions on bytes: topics, messages, frames, proofs of the key."""
