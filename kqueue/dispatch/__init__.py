"""The way of a job into the store and of its pointer into the tube."""
