"""What an operator asks: why, doctor, dry run, dead jobs, and how a job is shown."""
