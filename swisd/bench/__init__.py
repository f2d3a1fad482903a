"""First figures for a machine: one device, three devices, each lane, and llama.cpp beside them in one run."""
