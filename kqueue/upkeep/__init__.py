"""What is done beside the jobs: sweep, schedules, pauses, heartbeats, orphans."""
