"""What the operating system gives: clocks, forks, wake-ups."""
