"""What users do to an SQLite file that is in use, and that no acknowledged job is lost by it.

Each test drives processes step by step, so it is the same on every machine: none waits for a race. What races are
like is shown by ``test_storm``.
"""
