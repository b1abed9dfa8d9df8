"""Every broker, and the fake one of the machines."""

from kqueue.testing.contracts.broker import *
