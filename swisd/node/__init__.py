"""The only owner of tasks, threads and the clock: turns effects into I/O and I/O into events."""
