"""Brokers: where pointers to jobs go."""
