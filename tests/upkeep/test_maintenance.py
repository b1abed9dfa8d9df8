"""What is done beside the jobs: when it is due, by one thread at a time, seldom while the store is down."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kqueue import KQueue, StoreUnavailable
from kqueue.assembly import assemble
from kqueue.dispatch.limiter import LOOK_S as LOOK_AT_GATES_S
from kqueue.dispatch.limiter import MOST_TYPES
from kqueue.stores.memory.store import MemoryStore
from kqueue.system.clock import ManualClock
from kqueue.upkeep.heartbeat import Heartbeat
from kqueue.upkeep.maintenance import Maintenance
from kqueue.upkeep.pauses import LOOK_S, Pauses
from tests.flows.processes import run_in_child
from tests.tubes import await_true


class Home:
    """The maintenance of a queue in memory, whose clock is turned by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        parts = assemble(self.store, clock=self.clock)
        self.queue = KQueue.from_parts(parts)
        self.wakes: list[None] = []
        self.maintenance = Maintenance(
            pauses=Pauses(self.store, self.clock.monotonic),
            cron=parts.cron,
            limiter=parts.limiter,
            heartbeat=Heartbeat(
                store=self.store, id="0" * 28, types=list, note=dict, monotonic=self.clock.monotonic
            ),
            types=lambda: ["t"],
            wake=lambda: self.wakes.append(None),
            logger=logging.getLogger("kqueue"),
        )


@pytest.fixture
def home() -> Home:
    return Home()


def test_a_pause_is_looked_for_when_that_is_due_and_wakes_the_loops(home: Home) -> None:
    home.maintenance.do_due()
    assert home.wakes == []
    home.store.pause("t", home.store.now())
    home.maintenance.do_due()  # not due yet
    assert home.maintenance.paused() == frozenset()
    home.clock.advance(LOOK_S)
    home.maintenance.do_due()
    assert home.maintenance.paused() == {"t"}
    before = home.maintenance.paused()
    home.clock.advance(LOOK_S)
    home.maintenance.do_due()
    assert (
        home.maintenance.paused() is before
    )  # the same, so that loops see by its identity that nothing has changed
    assert len(home.wakes) == 1


def test_one_thread_does_it_while_others_go_on(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go_on = threading.Event(), threading.Event()
    home.maintenance.do_due()
    home.clock.advance(LOOK_S)
    monkeypatch.setattr(home.store, "paused", lambda: (inside.set(), go_on.wait(60), {})[2])
    first = threading.Thread(target=home.maintenance.do_due)
    first.start()
    assert inside.wait(60)
    home.maintenance.do_due()  # returns at once
    go_on.set()
    first.join(60)


def test_what_is_paused_is_known_before_the_first_job(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes while another thread takes the first look waits for it."""
    inside, go_on = threading.Event(), threading.Event()
    home.store.pause("t", home.store.now())
    paused = home.store.paused

    def slow() -> dict[str, float]:
        inside.set()
        assert go_on.wait(60)
        return paused()

    monkeypatch.setattr(home.store, "paused", slow)
    first = threading.Thread(target=home.maintenance.do_due)
    first.start()
    assert inside.wait(60)
    seen: list[frozenset[str]] = []
    second = threading.Thread(target=lambda: (home.maintenance.do_due(), seen.append(home.maintenance.paused())))
    second.start()
    assert seen == []
    go_on.set()
    first.join(60)
    second.join(60)
    assert seen == [{"t"}]


def test_what_cannot_be_learned_is_raised_and_what_else_fails_is_told_of_once(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def down(*_: object) -> Any:
        raise StoreUnavailable("memory: is down")

    with monkeypatch.context() as patch:
        patch.setattr(home.store, "paused", down)
        with pytest.raises(StoreUnavailable):
            home.maintenance.do_due()
    home.maintenance.do_due()
    monkeypatch.setattr(home.store, "held_types", down)
    for _ in range(3):
        home.clock.advance(60)
        home.maintenance.do_due()
    assert [record.getMessage() for record in caplog.records] == [
        "limits are not looked after now: memory: is down"
    ]


@contextmanager
def attended(home: Home) -> Iterator[None]:
    """As a loop that waits."""
    loop = object()
    home.maintenance.attend(loop)
    yield
    home.maintenance.loops.discard(loop)
    home.maintenance.leave()


def test_the_thread_is_there_while_any_loop_waits(home: Home) -> None:
    def there() -> bool:
        return any(thread.name == "kqueue-maintenance" for thread in threading.enumerate())

    with attended(home):
        with attended(home):
            await_true(there)
        assert there()
    assert not there()
    with attended(home):
        await_true(there)
    assert not there()


def test_a_child_that_comes_out_of_an_attended_loop_does_not_hang(home: Home) -> None:
    """The thread may hold the lock at the moment of the fork, and is not there in the child."""
    with attended(home), home.maintenance._changed:
        assert run_in_child(home.maintenance.leave) == 0
        assert run_in_child(home.maintenance.do_due) == 0


def test_held_jobs_of_many_types_are_looked_for_in_bounded_lots(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = [f"t{number:03}" for number in range(2 * MOST_TYPES + 50)]
    asked: list[list[str]] = []
    monkeypatch.setattr(home.store, "held_types", lambda some: asked.append(some) or [])
    limiter = home.queue._parts.limiter
    due = []
    for _ in range(4):
        due.append(limiter.seconds_to_look())
        limiter.look(set(types))
    assert asked[:3] == [types[:MOST_TYPES], types[MOST_TYPES : 2 * MOST_TYPES], types[2 * MOST_TYPES :]]
    assert due == [0.0, 0.0, 0.0, LOOK_AT_GATES_S]
    assert asked[3] == asked[0]
