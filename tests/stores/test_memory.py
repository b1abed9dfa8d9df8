"""What only the memory store has."""

import os

from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Selection
from kqueue.contracts.settlements import Retry
from kqueue.model.errors import AddFailed
from kqueue.model.job import Row, State
from kqueue.stores.memory.store import MemoryStore
from kqueue.system.clock import ManualClock

NOW = 1_700_000_000.0


def row(number, **fields):
    plain = Row(f"{number:028d}", "t", b"{}", "json", 100, State.READY, 0.0, NOW, 30.0, created_at=NOW, put_at=NOW)
    return plain._replace(**fields)


def test_a_child_after_a_fork_is_told_to_use_another_store():
    """It would run its parent's jobs again, and what it adds would be lost."""
    store = MemoryStore()
    store.add([row(1)])
    pid = os.fork()
    if pid == 0:
        try:
            store.add([row(2)])
        except AddFailed as failed:
            os._exit(0 if "after a fork" in str(failed) and failed.not_taken == (row(2).id,) else 1)
        os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.counts()["ready"] == 1


def test_now_is_the_clock_it_was_given():
    clock = ManualClock(NOW)
    store = MemoryStore(clock)
    clock.advance(5)
    assert store.now() == NOW + 5


def test_a_row_that_is_delayed_again_until_the_same_time_is_promoted_once():
    store = MemoryStore()
    store.add([row(1, state=State.DELAYED, run_at=NOW + 5)])
    (claimed,) = store.claim(Selection(("t",), (row(1).id,)), Budget(jobs=1), "w", NOW + 5, False).rows
    assert store.next_run_at() is None
    store.settle([Retry(claimed.id, 1, NOW + 5, "again", None)], NOW)
    assert store.next_run_at() == NOW + 5
    assert store.promote(NOW + 5, 9) == 1
    assert store.promote(NOW + 5, 9) == 0
