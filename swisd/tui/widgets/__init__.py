"""The parts of the dashboard's screen, one module each."""
