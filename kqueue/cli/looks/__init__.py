"""Commands that only look, one a file; each works on a store that may only be read."""
