"""The one place every socket goes through: it proves the swarm key today and encrypts tomorrow."""
