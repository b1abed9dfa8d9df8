"""Values: no I/O, no clock, nothing of the rooms above."""
