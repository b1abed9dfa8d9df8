"""The file itself: its locks, its place, its connections, and what its errors mean."""
