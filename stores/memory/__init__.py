"""The memory store: this process only."""
