"""Handles on each kind of store."""

import sys

import pytest

from tests.contracts.stores import STORES


@pytest.fixture(params=STORES)
def make_store(request):
    return STORES[request.param].make(request)


@pytest.fixture(params=[name for name, kind in STORES.items() if kind.shared])
def make_shared_store(request):
    return STORES[request.param].make(request)


@pytest.fixture(params=[name for name, kind in STORES.items() if kind.atomic])
def make_atomic_store(request):
    """For threads at once: they take turns as often as they can, so that a missing lock shows."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield STORES[request.param].make(request)
    sys.setswitchinterval(interval)


@pytest.fixture(params=[name for name, kind in STORES.items() if kind.absent])
def absent_store(request):
    return STORES[request.param].absent(request)


@pytest.fixture
def store(make_store):
    return make_store()


@pytest.fixture
def other(store, make_store):
    return make_store()
