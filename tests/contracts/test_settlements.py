"""Every store."""

from kqueue.testing.contracts.settlements import *
