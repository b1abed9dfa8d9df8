"""Every store."""

from kqueue.testing.contracts.session import *
