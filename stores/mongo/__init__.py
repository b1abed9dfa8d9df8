"""The MongoDB store: a replica set."""
