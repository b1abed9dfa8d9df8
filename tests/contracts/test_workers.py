"""Every store."""

from kqueue.testing.contracts.workers import *
