"""What is told of what happens: events, counters, logs, outages."""
