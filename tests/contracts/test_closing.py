"""Every store, opened, used and closed from many threads at once: what one does never spoils what another does."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kqueue import KQueue
from kqueue.stores.mongo.store import MongoStore
from kqueue.system.mint import IdMint
from tests.contracts.rows import claim, ids, row

THREADS = 8
ROUNDS = 6
mint = IdMint()


def at_once(work):
    """``work(number)`` in many threads that begin together; what each gave. Raises what any of them raised."""
    begin = threading.Barrier(THREADS)

    def run(number):
        begin.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def test_each_thread_may_open_and_close_while_the_others_are_at_work(make_atomic_store):
    store = make_atomic_store()

    def work(number):
        added = []
        for _ in range(ROUNDS):
            rows = [row(id=id, type=f"t{number}") for id in mint.make(2)]
            store.open()
            store.add(rows)
            assert ids(store.get(ids(rows))) == ids(rows)
            assert store.counts(f"t{number}")["ready"] == len(added) + 2
            added += ids(rows)
            store.close()
        return added

    added = [id for of_thread in at_once(work) for id in of_thread]
    assert len(store.get(added)) == len(added) == THREADS * ROUNDS * 2


def test_a_thread_that_only_closes_stops_nobody(make_atomic_store):
    store = make_atomic_store()
    rows = [row(id=id) for id in mint.make(THREADS * ROUNDS)]
    store.add(rows)

    def work(number):
        if number % 2:
            for _ in range(ROUNDS * 3):
                store.close()
            return []
        return [one.id for _ in range(ROUNDS) for one in claim(store, *ids(rows[:ROUNDS])).rows]

    claimed = [id for of_thread in at_once(work) for id in of_thread]
    assert sorted(claimed) == ids(rows[:ROUNDS])


def test_jobs_are_added_by_many_threads_that_each_open_and_close_the_queue(make_atomic_store):
    queue = KQueue(store=make_atomic_store())

    def work(number):
        added = []
        for _ in range(ROUNDS):
            with queue:
                added.append(queue.add_job(f"t{number}"))
        return added

    added = [id for of_thread in at_once(work) for id in of_thread]
    assert len(set(added)) == THREADS * ROUNDS
    assert sum(queue.counts().values()) == THREADS * ROUNDS
    queue.close()


def test_a_client_is_closed_by_the_last_that_uses_it(mongod, mongo_database):
    """And not before: its commands come to their end. None is left open."""
    store = MongoStore(mongod.url(mongo_database))
    link = store._links.get()
    with link.use() as database:
        store.close()
        with pytest.raises(StopIteration), link.use() as another:
            assert another is not database
            next(iter(()))
        assert database.command("ping")["ok"] == 1
        client = database.client
    store.close()
    with pytest.raises(Exception, match="after close"):
        client.admin.command("ping")
