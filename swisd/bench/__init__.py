"""The speed of a swarm in figures: one device alone, the swarm, each lane and llama.cpp, asked in turn."""
