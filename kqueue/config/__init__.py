"""Configuration: its keys, its layers, and what they make."""
