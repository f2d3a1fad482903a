"""A deterministic world: the real machines of several devices in virtual time over a seeded network."""
