"""Lanes: how frames travel from one device to the next. TCP, the bus, or memory for tests."""
