"""Rings that a thread sends: nobody waits for it, none is lost where it ends, and all goes on without one."""

import gc
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kqueue.brokers.beanstalk import wire
from kqueue.contracts.repair import Due
from kqueue.dispatch import ringing
from kqueue.dispatch.ringing import Ringing
from tests.beanstalkd import Beanstalkd
from tests.flows.processes import run_in_child
from tests.tubes import PATIENCE_S, await_true

#: Adds jobs by two queues, and comes to its end.
PRODUCER = """
import sys
from kqueue import KQueue
for number in range(2):
    queue = KQueue(f"sqlite:///{sys.argv[1]}/{number}.db", sys.argv[2])
    for _ in range(50):
        queue.add_job("t")
"""


def due(number: int) -> Due:
    return Due(str(number), "t", 0, 0.0, 0.0)


class Put:
    """What a doorbell does for :class:`Ringing`: may be held up, or raise."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: list[int] = []
        self.entered = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()
        self.then: Callable[[], object] = lambda: None

    def __call__(self, dues: list[Due], now: float) -> None:
        self.batches.append([one.id for one in dues])
        self.threads.append(threading.get_ident())
        self.entered.set()
        assert self.may_end.wait(PATIENCE_S)
        self.then()

    def ids(self) -> list[str]:
        return [id for batch in self.batches for id in batch]


@pytest.fixture
def put() -> Iterator[Put]:
    put = Put()
    yield put
    put.may_end.set()


@pytest.fixture
def rings(put: Put) -> Iterator[Ringing]:
    rings = Ringing(put)
    yield rings
    put.may_end.set()
    rings.close()


def hold_up(put: Put, rings: Ringing) -> None:
    """The sender waits for a silent broker, with what is numbered 0."""
    put.may_end.clear()
    rings.ring([due(0)], 0.0)
    assert put.entered.wait(PATIENCE_S)


def senders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kqueue-doorbell"]


def test_nobody_waits_for_a_put_and_what_comes_meanwhile_goes_together(put: Put, rings: Ringing) -> None:
    hold_up(put, rings)
    for number in range(1, 50):
        rings.ring([due(number)], 0.0)
    assert put.batches == [["0"]]
    put.may_end.set()
    rings.flush(PATIENCE_S)
    assert put.batches == [["0"], [str(number) for number in range(1, 50)]]
    assert threading.get_ident() not in put.threads


def test_a_flush_returns_once_all_is_put_or_soon_where_the_broker_is_silent(put: Put, rings: Ringing) -> None:
    hold_up(put, rings)
    rings.ring([due(1)], 0.0)
    rings.flush(0.0)
    assert put.batches == [["0"]]
    put.may_end.set()
    rings.flush(PATIENCE_S)
    assert put.ids() == ["0", "1"]
    rings.flush(0.0)  # nothing is to be waited for


@pytest.mark.parametrize("why", ["no more threads", "greenlets", "the interpreter ends"])
def test_without_a_thread_whoever_rings_puts(
    put: Put, rings: Ringing, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    match why:
        case "greenlets":
            monkeypatch.setattr(ringing, "are_greenlets", lambda: True)
        case "the interpreter ends":
            monkeypatch.setattr(ringing._LAST, "is_over", True)
        case _:
            monkeypatch.setattr("_thread.start_new_thread", refuse)
    rings.ring([due(0)], 0.0)
    assert (put.ids(), put.threads) == (["0"], [threading.get_ident()])

    def strike() -> None:
        raise KeyboardInterrupt

    put.then = strike
    with pytest.raises(KeyboardInterrupt):
        rings.ring([due(1)], 0.0)
    monkeypatch.undo()
    put.then = lambda: None
    rings.ring([due(2)], 0.0)
    rings.flush(PATIENCE_S)
    assert put.ids() == ["0", "1", "2"]
    assert put.threads[2] != threading.get_ident()


def refuse(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_a_sender_that_gets_no_time_is_not_waited_for(
    put: Put, rings: Ringing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a server gives its threads none between two requests."""
    with monkeypatch.context() as patch:
        patch.setattr(ringing, "Background", lambda function, name: None)
        rings.ring([due(0)], 0.0)
        assert put.batches == []
        patch.setattr(ringing, "STUCK_S", -PATIENCE_S)
        rings.ring([due(1)], 0.0)
    assert put.batches == [["0", "1"]]
    rings.ring([due(2)], 0.0)
    rings.flush(PATIENCE_S)
    assert put.ids() == ["0", "1", "2"]


def test_a_sender_that_waits_for_the_broker_is_not_stuck(
    put: Put, rings: Ringing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ringing, "STUCK_S", -PATIENCE_S)
    hold_up(put, rings)
    rings.ring([due(1)], 0.0)
    assert put.batches == [["0"]]


def test_a_sender_with_nothing_to_do_ends_and_another_begins(
    put: Put, rings: Ringing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ringing, "IDLE_S", 0.0)
    before = senders()
    for number in range(20):
        rings.ring([due(number)], 0.0)
        await_true(lambda: len(put.batches) == number + 1 and not set(senders()) - set(before))  # noqa: B023
    assert put.ids() == [str(number) for number in range(20)]


def test_a_close_sends_the_last_rings_and_a_later_one_works(put: Put, rings: Ringing) -> None:
    for number in range(3):
        rings.ring([due(number)], 0.0)
    rings.close()
    assert put.ids() == ["0", "1", "2"]
    rings.ring([due(3)], 0.0)
    rings.close()
    rings.close()
    assert put.ids() == ["0", "1", "2", "3"]


def test_a_close_does_not_wait_long_for_a_silent_broker(
    put: Put, rings: Ringing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ringing, "LAST_S", 0.0)
    hold_up(put, rings)
    rings.ring([due(1)], 0.0)
    rings.close()
    assert put.batches == [["0"]]
    put.may_end.set()
    await_true(lambda: put.ids() == ["0", "1"])


def test_the_last_rings_of_all_queues_have_one_deadline(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(ringing._Sender, "join", lambda _, seconds: waits.append(seconds))
    times = iter([0.0, 0.25, 0.75, 5.0])
    last = [ringing._Sender(Ringing(put)) for _ in range(3)]
    monkeypatch.setattr(ringing, "awake", lambda: next(times))
    ringing.end_all(last)
    assert waits == [0.75, 0.25, 0.0]


def test_a_fork_sends_what_is_to_be_rung_and_both_go_on(put: Put, rings: Ringing) -> None:
    """And the thread has ended before: a child is forked with no lock of its held."""
    for number in range(3):
        rings.ring([due(number)], 0.0)

    def child() -> None:
        assert put.ids() == ["0", "1", "2"]
        theirs = Ringing(put)
        theirs.ring([due(3)], 0.0)
        theirs.close()
        assert put.ids() == ["0", "1", "2", "3"]

    assert run_in_child(child) == 0
    rings.ring([due(4)], 0.0)
    rings.close()
    assert put.ids() == ["0", "1", "2", "4"]


def test_a_child_does_not_wait_for_a_sender_that_is_its_parents(put: Put, rings: Ringing) -> None:
    """Whose broker is silent, so that it went on over the fork."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ringing, "LAST_S", 0.0)
        hold_up(put, rings)
        child = os.fork()
    if child == 0:
        ringing.LAST_S = PATIENCE_S
        signal.alarm(int(PATIENCE_S / 2))
        ringing._LAST.at_exit()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_the_end_of_the_interpreter_sends_the_last_rings(beanstalkd: Beanstalkd, tmp_path: Path) -> None:
    child = [sys.executable, "-W", "ignore", "-c", PRODUCER, str(tmp_path), beanstalkd.url]  # it closes nothing
    subprocess.run(child, check=True, timeout=PATIENCE_S)
    ids: set[str] = set()
    with beanstalkd.client() as client:
        for tube in client.tubes():
            client.watch(tube)
        while client.stats()["current-jobs-ready"]:
            entry = client.reserve(timeout=60)
            ids.update(wire.decode(entry.body).ids)
            client.delete(entry)
    assert len(ids) == 100


class Strange(BaseException):
    """As a time-out of gevent is."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_sender_that_is_struck_is_replaced(put: Put, rings: Ringing) -> None:
    def strike() -> None:
        put.then = lambda: None
        raise Strange

    put.then = strike
    rings.ring([due(0)], 0.0)
    await_true(lambda: rings._sender is None)
    rings.ring([due(1)], 0.0)
    rings.flush(PATIENCE_S)
    assert put.batches == [["0"], ["1"]]


def test_only_so_much_is_left(put: Put, rings: Ringing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ringing, "MAX_WAITING", 3)
    hold_up(put, rings)
    for number in range(1, 4):
        assert not rings.is_full()
        rings.ring([due(number)], 0.0)
    assert rings.is_full()
    put.may_end.set()
    rings.flush(PATIENCE_S)
    assert not rings.is_full()


def test_what_rings_while_it_puts_waits_for_nothing(put: Put, rings: Ringing) -> None:
    """As an observer does that is told of an outage that is over: it adds a job, and closes its queue."""

    def again() -> None:
        put.then = lambda: None
        rings.ring([due(1)], 0.0)
        rings.flush(PATIENCE_S)
        rings.ring([due(2)], 0.0)
        rings.close()

    put.then = again
    rings.ring([due(0)], 0.0)
    await_true(lambda: put.ids() == ["0", "1", "2"])


class Struck(Exception):
    """By a signal."""


def test_signals_at_random_times_leave_nothing_held() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    put: list[str] = []
    rings = Ringing(lambda dues, _: put.extend([one.id for one in dues]))
    struck = 0

    def strike(*_: object) -> None:
        raise Struck

    before = signal.signal(signal.SIGALRM, strike)
    gc.disable()  # what strikes a callback of the collector is told as an exception ignored
    try:
        while struck < 300:
            with suppress(Struck):
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 3e-4))
                try:
                    for number in range(1000):
                        rings.ring([due(number)], 0.0)
                        if number % 5 == 0:
                            rings.flush()
                except Struck:
                    struck += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    # Should the last strike have kept a sender from its start, that is seen after a while.
    await_true(lambda: bool(rings.ring([due(-1)], 0.0) or rings.flush() or put[-1:] == ["-1"]))
    rings.close()
