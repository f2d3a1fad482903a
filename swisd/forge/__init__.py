"""Laptop side only: GGUF files become blobs, graph fragments and a manifest."""
