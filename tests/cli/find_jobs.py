"""Commands that make sense only where jobs are."""

from tests.shop import NO_JOB

#: Commands that make sense only where jobs are.
FIND_JOBS = [
    ["status"],
    ["sweep"],
    ["sweep", "--dry-run"],
    ["list"],
    ["show", NO_JOB],
    ["retry", NO_JOB, "--reason", "mended"],
    ["delete", NO_JOB, "--yes"],
]
