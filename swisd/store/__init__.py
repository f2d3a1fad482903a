"""Blobs on disk, named by their sha256, and how a device gets them from the others."""
