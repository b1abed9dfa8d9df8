"""Every store."""

from kqueue.testing.contracts.runs import *
