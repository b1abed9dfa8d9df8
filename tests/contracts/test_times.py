"""Every store; where it needs transactions, every one that has them."""

import pytest

from kqueue.contracts.store import JobStore
from kqueue.testing.contracts.rows import MakeStore
from kqueue.testing.contracts.times import *
from tests.contracts.stores import each_store

make_full_store = each_store(lambda kind: kind.transactions)


@pytest.fixture
def full_store(make_full_store: MakeStore) -> JobStore:
    return make_full_store()
