"""Every store."""

from kqueue.testing.contracts.intake import *
