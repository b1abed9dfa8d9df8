"""Loops that reserve, claim and run."""
