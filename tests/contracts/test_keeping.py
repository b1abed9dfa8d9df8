"""Every store that adds to histories."""

from kqueue.testing.contracts.keeping import *
from tests.contracts.stores import each_store

make_store = each_store(lambda kind: kind.histories)
