"""What the suites ask a ``conftest.py`` for. Star-import it there, and give your own in the place of some.

* ``make_store``: a function; each call gives one more handle on the data of this test, as another process would
  open it. It is needed. The test closes none: your fixture does, after it.
* ``make_shared_store``: as that, of a store that other processes reach. One that lives in its process skips here.
* ``make_atomic_store``: as that, for threads at once, which take turns here as often as they can.
* ``full_store``: a handle on a store that has transactions.
* ``absent_store``: a handle on one that is not there, so that each call fails. Where none is given, its tests skip.
* ``make_broker``, for :mod:`~kqueue.testing.contracts.broker`: a function from its ``Shelf``, the little of a store
  that a broker may need, to a broker that is not open yet.
"""

import sys
from collections.abc import Iterator

import pytest

from kqueue.contracts.store import JobStore
from kqueue.testing.contracts.rows import MakeStore


@pytest.fixture
def make_shared_store(make_store: MakeStore) -> MakeStore:
    """The same data, also after a fork."""
    return make_store


@pytest.fixture
def often_switched() -> Iterator[None]:
    """Threads take turns as often as they can, so that a missing lock shows."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def make_atomic_store(make_store: MakeStore, often_switched: None) -> MakeStore:
    """For threads at once."""
    return make_store


@pytest.fixture
def absent_store() -> JobStore:
    """None is known."""
    pytest.skip("no fixture absent_store: a handle on a store that is not there")


@pytest.fixture
def store(make_store: MakeStore) -> JobStore:
    """A handle on the data of this test."""
    return make_store()


@pytest.fixture
def other(store: JobStore, make_store: MakeStore) -> JobStore:
    """Another handle on the same."""
    return make_store()


@pytest.fixture
def full_store(store: JobStore) -> JobStore:
    """One that has transactions."""
    return store
