"""The pure heart of swisd: no clock, no randomness, no sockets, no threads; standard library only."""
