"""Every store."""

from kqueue.testing.contracts.operator import *
