"""Every store."""

from kqueue.testing.contracts.lookup import *
