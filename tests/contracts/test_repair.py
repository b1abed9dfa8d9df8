"""Every store."""

from kqueue.testing.contracts.repair import *
