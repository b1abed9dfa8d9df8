"""Python runs this first in each process that has this folder on its path: see the fixture ``renewing_often``."""

from kqueue.renewal import due

due.PART, due.SLACK = 1 / 3000, 1 / 10_000
