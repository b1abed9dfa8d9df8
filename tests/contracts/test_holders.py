"""Every store that has transactions."""

from kqueue.testing.contracts.holders import *
from tests.contracts.stores import each_store

make_store = each_store(lambda kind: kind.transactions)
