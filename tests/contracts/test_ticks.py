"""Ticks: a schedule's jobs and its last tick are added together, once. Over every store that has transactions."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kqueue.contracts.intake import Tick
from kqueue.model.errors import AddFailed
from tests.contracts.rows import NOW, add, delayed, ids, row
from tests.contracts.stores import STORES

#: A time that is no whole number in binary.
FIRST = NOW + 0.1
SECOND = NOW + 60.3


@pytest.fixture(params=[name for name, kind in STORES.items() if kind.transactions])
def make_store(request):
    return STORES[request.param].make(request)


def test_a_schedule_that_never_ticked_has_no_last_tick(store):
    assert store.last_ticks() == {}


def test_a_tick_adds_its_rows_and_is_remembered(store, other):
    rows = [row(), delayed(NOW + 9, limit_key="k"), row(type="x", unique_key="u")]
    assert store.add_tick(Tick("hourly", None, FIRST), rows)
    assert other.last_ticks() == {"hourly": FIRST}
    assert other.get(ids(rows)) == rows


def test_the_same_tick_is_added_once(store, other):
    assert store.add_tick(Tick("hourly", None, FIRST), [row()])
    again = row()
    assert not other.add_tick(Tick("hourly", None, FIRST), [again])
    assert other.add_tick(Tick("hourly", FIRST, SECOND), [row()])
    assert not store.add_tick(Tick("hourly", FIRST, SECOND), [again])
    assert not store.add_tick(Tick("hourly", None, SECOND + 1), [again])
    assert not store.add_tick(Tick("hourly", SECOND + 1, SECOND + 2), [again])
    assert store.get([again.id]) == []
    assert store.counts()["ready"] == 2
    assert store.last_ticks() == {"hourly": SECOND}


def test_a_tick_that_never_was_cannot_be_gone_on_from(store):
    assert not store.add_tick(Tick("hourly", FIRST, SECOND), [row()])
    assert store.last_ticks() == {}
    assert store.counts()["ready"] == 0


def test_a_tick_may_have_no_rows(store):
    assert store.add_tick(Tick("hourly", None, FIRST), [])
    assert store.last_ticks() == {"hourly": FIRST}
    assert not store.add_tick(Tick("hourly", None, FIRST), [])


def test_schedules_go_on_by_themselves(store):
    assert store.add_tick(Tick("a", None, FIRST), [row()])
    assert store.add_tick(Tick("b ☃", None, SECOND), [row()])
    assert store.add_tick(Tick("a", FIRST, SECOND), [row()])
    assert store.last_ticks() == {"a": SECOND, "b ☃": SECOND}


def test_the_last_tick_outlives_its_jobs(store, make_store):
    job = row()
    store.add_tick(Tick("hourly", None, FIRST), [job])
    assert store.delete([job.id]) == 1
    store.purge("t", 10)
    store.expire(NOW + 1e9, 100)
    assert store.last_ticks() == {"hourly": FIRST}
    store.close()
    assert make_store().last_ticks() == {"hourly": FIRST}


def test_a_tick_whose_rows_cannot_be_added_is_not_made(store):
    (there,) = add(store, row())
    before = row()
    with pytest.raises(AddFailed) as failed:
        store.add_tick(Tick("hourly", None, FIRST), [before, row(id=there)])
    assert set(failed.value.not_taken) == {before.id, there}
    assert failed.value.taken == failed.value.unknown == ()
    assert store.last_ticks() == {}
    assert store.get([before.id]) == []


def test_a_store_that_is_not_there_names_every_job_as_not_taken(absent_store):
    rows = [row(), row()]
    with pytest.raises(AddFailed) as failed:
        absent_store.add_tick(Tick("hourly", None, FIRST), rows)
    assert failed.value.not_taken == tuple(ids(rows))


def test_of_many_threads_that_add_the_same_tick_one_does(make_atomic_store):
    stores = [make_atomic_store() for _ in range(6)]
    barrier = threading.Barrier(len(stores))

    def work(store):
        won, last = [], None
        for number in range(10):
            job = row()
            barrier.wait()
            if store.add_tick(Tick("hourly", last, NOW + number), [job]):
                won.append((number, job.id))
            last = NOW + number
        return won

    with ThreadPoolExecutor(len(stores)) as pool:
        won = sorted(one for part in pool.map(work, stores) for one in part)
    assert [number for number, _ in won] == list(range(10))
    assert stores[0].counts()["ready"] == 10
    assert len(stores[0].get([id for _, id in won])) == 10
    assert stores[0].last_ticks() == {"hourly": NOW + 9}
