"""Every store."""

from kqueue.testing.contracts.dispatching import *
