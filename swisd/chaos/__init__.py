"""A swarm of real processes on this machine, and what its answers do when devices are killed."""
