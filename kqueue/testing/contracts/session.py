"""A store that is opened, used and closed, by threads and after forks, and tells the time."""

import os
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from kqueue import KQueue
from kqueue.contracts.repair import Recovered
from kqueue.contracts.runs import Selection
from kqueue.contracts.settlements import Settled
from kqueue.contracts.store import JobStore
from kqueue.model.job import State
from kqueue.testing.contracts.rows import NOTHING, NOW, WIDE, MakeStore, add, claim, ids, row

# -- a new store -----------------------------------------------------------------------------------------


def test_its_address_is_text_and_open_may_be_called_again(store: JobStore) -> None:
    store.open()
    store.open()
    assert isinstance(store.address, str)
    assert store.address


def test_it_says_whether_a_url_leads_other_processes_to_it(store: JobStore) -> None:
    assert store.shared_url is None or "://" in store.shared_url


def test_what_other_processes_share_has_a_url_for_them(make_shared_store: MakeStore) -> None:
    assert make_shared_store().shared_url is not None


def test_its_clock_is_the_time_of_day(store: JobStore) -> None:
    assert abs(store.now() - time.time()) < 60


def test_an_empty_store_answers_every_question(store: JobStore) -> None:
    assert store.get(["0" * 28]) == []
    assert store.counts() == {"delayed": 0, "ready": 0, "held": 0, "running": 0, "dead": 0, "done": 0}
    assert store.counts("t") == {"delayed": 0, "ready": 0, "held": 0, "running": 0, "dead": 0, "done": 0}
    assert store.overview() == []
    assert store.ready_types("", 10) == store.held_types(["t"]) == []
    assert store.sweep_position() == ""
    assert store.next_run_at() is None
    assert not store.has_ready(["t"])
    assert claim(store) == claim(store, "0" * 28) == NOTHING
    assert store.recover(NOW, 3, 10) == Recovered(0)
    assert store.promote(NOW, 10) == store.purge("t", 10) == store.delete(["0" * 28]) == 0
    assert store.find_abandoned(NOW, 10) == []
    assert store.find_due(NOW, 10) == store.find_unput(NOW, 10) == store.find_lost({"t": None}, NOW, 5, 10) == []
    assert store.claimed_by("nobody") == store.find(None, State.DEAD, None, 10) == []


def test_empty_lists_are_fine(store: JobStore) -> None:
    store.add([])
    assert store.renew([], NOW) == frozenset()
    assert store.settle([], NOW) == Settled()
    assert store.get([]) == []
    assert store.mark([], NOW) == store.revive([], "x", NOW, None) == []
    assert store.delete([]) == 0
    assert not store.has_ready([])
    assert store.claim(Selection(("t",), ()), WIDE, "w", NOW, False) == NOTHING
    assert store.claim(Selection((), None), WIDE, "w", NOW, False) == NOTHING


def test_the_first_writer_of_a_setting_wins(store: JobStore, other: JobStore) -> None:
    assert store.setting("prefix", "first-") == "first-"
    assert other.setting("prefix", "second-") == "first-"
    assert other.setting("another", "x") == "x"


def test_what_is_remembered_last_is_what_is_remembered(store: JobStore, other: JobStore) -> None:
    assert store.remembered("broker") is None
    store.remember("broker", "first")
    assert other.remembered("broker") == "first"
    other.remember("broker", "second ☃")
    assert store.remembered("broker") == "second ☃"
    assert store.remembered("prefix") is None
    assert store.setting("broker", "a setting") == "a setting"
    assert store.remembered("broker") == "second ☃"


def test_of_many_writers_of_a_setting_at_once_one_wins(make_atomic_store: MakeStore) -> None:
    stores = [make_atomic_store() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda pair: pair[1].setting("prefix", f"p{pair[0]}"), enumerate(stores)))
    assert len(set(seen)) == 1


# -- handles, threads and forks --------------------------------------------------------------------------


def test_close_may_be_called_at_any_time_and_the_next_call_opens_again(make_store: MakeStore) -> None:
    store = make_store()
    store.close()
    (id,) = add(store, row())
    before = store.pulse()
    store.close()
    store.close()
    assert claim(store, id).rows
    assert store.pulse() is None or store.pulse() != before


def test_rows_outlive_the_handle(make_store: MakeStore) -> None:
    store = make_store()
    (id,) = add(store, row())
    store.close()
    assert make_store().get([id])


def test_a_second_handle_may_be_closed_while_the_first_is_used(store: JobStore, other: JobStore) -> None:
    add(store, row())
    assert other.counts()["ready"] == 1
    other.close()
    (id,) = add(store, row())
    assert other.get([id])


def in_child(work: Callable[[], object]) -> Callable[[], bool]:
    """Run ``work`` in a forked child; returns a function that waits for it to end without an error."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return lambda: os.waitpid(pid, 0)[1] == 0


def test_a_child_after_a_fork_uses_its_parents_store_and_the_parent_goes_on(make_shared_store: MakeStore) -> None:
    store = make_shared_store()
    add(store, row())
    rows = [row() for _ in range(4)]
    children = [in_child(partial(add, store, job)) for job in rows]
    given = add(store, row())
    assert [done() for done in children] == [True] * 4
    assert ids(store.get(ids(rows))) == ids(rows)
    assert store.counts()["ready"] == 6
    assert claim(store, *given).rows


def test_what_a_child_adds_after_its_parent_has_closed_is_kept(make_shared_store: MakeStore) -> None:
    store = make_shared_store()
    add(store, row())
    job, second = row(), row()
    reader, writer = os.pipe()

    def child() -> Any:
        add(store, job)
        os.read(reader, 1)
        add(store, second)
        store.close()

    done = in_child(child)
    while not store.get([job.id]):
        time.sleep(0.005)
    store.close()
    os.write(writer, b"x")
    assert done()
    os.close(reader)
    os.close(writer)
    assert ids(store.get([job.id, second.id])) == [job.id, second.id]


def test_a_fork_while_threads_of_the_parent_write_harms_neither(make_shared_store: MakeStore) -> None:
    store = make_shared_store()
    add(store, row())
    stop = threading.Event()

    def produce() -> Any:
        added: list[str] = []
        while not stop.is_set():
            added += add(store, row())
        return added

    with ThreadPoolExecutor(2) as pool:
        producers = [pool.submit(produce) for _ in range(2)]
        try:
            rows = [row() for _ in range(3)]
            finished = [in_child(partial(add, store, job))() for job in rows]
        finally:
            stop.set()
        added = [id for producer in producers for id in producer.result()]
    assert finished == [True] * 3
    assert len(store.get(added + ids(rows))) == len(added) + 3


# -- opened and closed by many threads -------------------------------------------------------------------

THREADS = 8
ROUNDS = 6


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """``work(number)`` in many threads that begin together; what each gave. Raises what any of them raised."""
    begin = threading.Barrier(THREADS)

    def run(number: int) -> Any:
        begin.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def test_each_thread_may_open_and_close_while_the_others_are_at_work(make_atomic_store: MakeStore) -> None:
    store = make_atomic_store()

    def work(number: int) -> Any:
        added: list[str] = []
        for _ in range(ROUNDS):
            rows = [row(type=f"t{number}") for _ in range(2)]
            store.open()
            store.add(rows)
            assert ids(store.get(ids(rows))) == ids(rows)
            assert store.counts(f"t{number}")["ready"] == len(added) + 2
            added += ids(rows)
            store.close()
        return added

    added = [id for of_thread in at_once(work) for id in of_thread]
    assert len(store.get(added)) == len(added) == THREADS * ROUNDS * 2


def test_a_thread_that_only_closes_stops_nobody(make_atomic_store: MakeStore) -> None:
    store = make_atomic_store()
    rows = [row() for _ in range(THREADS * ROUNDS)]
    store.add(rows)

    def work(number: int) -> Any:
        if number % 2:
            for _ in range(ROUNDS * 3):
                store.close()
            return []
        return [one.id for _ in range(ROUNDS) for one in claim(store, *ids(rows[:ROUNDS])).rows]

    claimed = [id for of_thread in at_once(work) for id in of_thread]
    assert sorted(claimed) == ids(rows[:ROUNDS])


def test_jobs_are_added_by_many_threads_that_each_open_and_close_the_queue(make_atomic_store: MakeStore) -> None:
    queue = KQueue(store=make_atomic_store())

    def work(number: int) -> Any:
        added = []
        for _ in range(ROUNDS):
            with queue:
                added.append(queue.add_job(f"t{number}"))
        return added

    added = [id for of_thread in at_once(work) for id in of_thread]
    assert len(set(added)) == THREADS * ROUNDS
    assert sum(queue.counts().values()) == THREADS * ROUNDS
    queue.close()
