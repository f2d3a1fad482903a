"""The message bus: an MQTT client, an embedded broker, an in-memory twin, and finding the swarm's host."""
