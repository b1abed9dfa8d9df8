"""A job in hand: it is run, and its end is written."""
