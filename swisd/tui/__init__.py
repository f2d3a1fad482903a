"""The dashboard: a pure fold of swarm events into a view, and the widgets that draw it."""
