"""One ``work`` with many types that do not share their places: one dispatcher, however many there are."""

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kqueue import JobInHand, KQueue
from kqueue.brokers.beanstalk.stream import Stream
from kqueue.contracts.admission import Admission, Claimer
from kqueue.loops.dispatcher import Dispatcher
from kqueue.system.wakeup import Wakeup
from tests.beanstalkd import Beanstalkd
from tests.closing import Closes
from tests.flows.working import Gate, Working
from tests.steps import edges
from tests.steps.tap import Tap
from tests.tubes import await_true

T = TypeVar("T")

#: Of one work with threads, coroutines and a beanstalkd: its loop, watchdog, event loop, maintenance, doorbell, and
#: the thread that calls it.
MOST_THREADS = 6
#: And of its files: two ends of each wakeup, the sockets, those of the store and of the event loop.
MOST_FILES = 40


class Finishing:
    """Handlers that delete, and how often each type ran."""

    def __init__(self, queue: KQueue, types: int, **options: Any) -> None:
        self.runs: Counter[str] = Counter()
        for number in range(types):
            queue.add_handler(f"a{number}", self.handle, **options)

    async def handle(self, job: JobInHand) -> None:
        self.runs[job.type] += 1
        job.delete()


class Keeping:
    """A type ``full`` whose jobs keep all its places, until the test lets them go."""

    def __init__(self, queue: KQueue, concurrency: int) -> None:
        self.going: list[Callable[[], object]] = []
        self.started = 0
        self.most = 0
        self._running = 0
        self.is_open = False
        queue.add_handler("full", self.handle, concurrency=concurrency)

    async def handle(self, job: JobInHand) -> None:
        self.started += 1
        self._running += 1
        self.most = max(self.most, self._running)
        if not self.is_open:
            event, loop = asyncio.Event(), asyncio.get_running_loop()
            self.going.append(lambda: loop.call_soon_threadsafe(event.set))
            await event.wait()
        self._running -= 1
        job.delete()

    def open(self) -> None:
        self.is_open = True
        for go in self.going:
            go()


def are_gone(queue: KQueue, *types: str) -> bool:
    return not any(any(queue.counts(type).values()) for type in types)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def own_threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("kqueue"))


class Counting(Tap):
    """Counts the statements of all threads, by their first word, and the commands to a beanstalkd."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def step(self, nature: str, effect: Callable[[], T], fail: Callable[[], BaseException]) -> T:
        if nature.startswith("sqlite: ") or nature == "tube: connect":
            self.calls[" ".join(nature.split()[:2])] += 1
        return effect()

    def send(self, stream: Stream, data: bytes) -> None:
        for word in (b"reserve-with-timeout", b"watch", b"ignore", b"release", b"delete"):
            self.calls[f"tube: {word.decode()}"] += sum(line.startswith(word) for line in data.splitlines())
        SEND(stream, data)


SEND = Stream.send


@pytest.fixture
def tapped(
    tmp_path: Path, beanstalkd: Beanstalkd, closes: Closes, monkeypatch: pytest.MonkeyPatch
) -> tuple[KQueue, Counting]:
    """A queue on a SQLite file and a beanstalkd, and what counts its calls."""
    tap = Counting()
    edges.install(tap, monkeypatch)
    monkeypatch.setattr(Stream, "send", lambda *given: tap.send(*given))  # noqa: PLW0108 (so that it becomes a method)
    return closes(KQueue(f"sqlite:///{tmp_path}/jobs.db", broker=beanstalkd.url)), tap


@pytest.mark.parametrize("types", [150, 200])
def test_one_work_takes_as_many_threads_and_files_for_many_coroutine_types_as_for_one(
    types: int, tmp_path: Path, beanstalkd: Beanstalkd, closes: Closes
) -> None:
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db", broker=beanstalkd.url))
    finishing = Finishing(queue, types)
    plain: list[int] = []
    queue.add_handler("plain", lambda job: plain.append(job.payload) or job.delete())
    for bounded in range(3):
        queue.add_handler(f"b{bounded}", JobInHand.delete, concurrency=1)
    for number in range(types):
        queue.add_jobs(f"a{number}", range(2))
    queue.open()
    others = len(own_threads())  # some that a test before has made hang may still be there
    with beanstalkd.client() as client:
        files, connections = open_files(), int(client.stats()["current-connections"])
        with Working(queue, threads=4):
            queue.add_jobs("plain", range(20))
            await_true(lambda: are_gone(queue, "plain", *(f"a{number}" for number in range(types))))
            assert len(own_threads()) - others <= MOST_THREADS + 4
            assert open_files() - files <= MOST_FILES
            assert int(client.stats()["current-connections"]) - connections <= 2
    assert finishing.runs == Counter({f"a{number}": 2 for number in range(types)})
    assert sorted(plain) == list(range(20))


def test_idle_coroutine_types_ask_no_more_than_one_does(tapped: tuple[KQueue, Counting]) -> None:
    """In three turns of the loop, each of which waits for a second in the tubes, and looks once into the store."""
    queue, tap = tapped
    Finishing(queue, 150)
    with Working(queue, threads=4):
        await_true(lambda: bool(queue.registry.loops()))
        [loop] = queue.registry.loops()
        # Until it waits: what begins beside it wakes it, the later the slower the machine.
        await_true(lambda: tap.calls["tube: reserve-with-timeout"] >= 5)
        turns = loop.turns
        tap.calls.clear()
        await_true(lambda: loop.turns >= turns + 3)
        calls = Counter(tap.calls)
    assert calls.total() <= 3 * 12, calls


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_full_coroutine_type_holds_up_no_other(concurrency: int, queue: KQueue) -> None:
    keeping, finishing = Keeping(queue, concurrency), Finishing(queue, 50)
    plain: list[int] = []
    queue.add_handler("plain", lambda job: plain.append(job.payload) or job.delete())
    bounded: list[int] = []
    queue.add_handler("bounded", lambda job: bounded.append(job.payload) or job.delete(), concurrency=1)
    queue.add_jobs("full", range(200), priority="urgent")
    with Working(queue, threads=3):
        await_true(lambda: keeping.started == concurrency)
        for number in range(50):
            queue.add_jobs(f"a{number}", range(4))
        queue.add_jobs("plain", range(50))
        queue.add_jobs("bounded", range(20))
        await_true(lambda: are_gone(queue, "plain", "bounded", *(f"a{number}" for number in range(50))))
        rows = queue.store.find("full", "ready", None, 300)
        assert [row.fence for row in rows] == [0] * (200 - concurrency)
        keeping.open()
        await_true(lambda: are_gone(queue, "full"))
    assert (keeping.started, keeping.most) == (200, concurrency)
    assert (sorted(plain), bounded) == (list(range(50)), list(range(20)))
    assert finishing.runs == Counter({f"a{number}": 4 for number in range(50)})


def test_a_full_thread_pool_holds_up_no_coroutine(queue: KQueue) -> None:
    gate, finishing = Gate(), Finishing(queue, 20)

    @queue.handler("plain")
    def wait(job: JobInHand) -> None:
        gate.wait(job.payload)
        job.delete()

    queue.add_jobs("plain", range(30), priority="urgent")
    with Working(queue, threads=2):
        await_true(lambda: len(gate.inside) == 2)
        for number in range(20):
            queue.add_jobs(f"a{number}", range(3))
        await_true(lambda: are_gone(queue, *(f"a{number}" for number in range(20))))
        assert len(gate.inside) == 2
        gate.open()
        await_true(lambda: are_gone(queue, "plain"))
    assert finishing.runs.total() == 60


def test_what_waits_for_a_full_type_is_not_claimed_again_and_again(tapped: tuple[KQueue, Counting]) -> None:
    """It costs nothing but looks into the tubes of the others, and one into the store each second."""
    queue, tap = tapped
    keeping = Keeping(queue, 1)
    Finishing(queue, 5)
    queue.add_jobs("full", range(300))
    with Working(queue, threads=2):
        await_true(lambda: keeping.started == 1)
        [loop] = queue.registry.loops()
        turns = loop.turns
        await_true(lambda: loop.turns >= turns + 2)
        tap.calls.clear()
        await_true(lambda: loop.turns >= turns + 4)
        calls = Counter(tap.calls)
        keeping.open()
        await_true(lambda: are_gone(queue, "full"))
    for claim in ("sqlite: BEGIN", "sqlite: UPDATE", "tube: release", "tube: delete", "tube: connect"):
        assert calls[claim] == 0, calls
    assert keeping.started == 300


def test_a_place_that_gets_free_costs_a_few_commands(tapped: tuple[KQueue, Counting]) -> None:
    """Each of 20 jobs in turn takes the one place, beside others that are idle: no connection, one claim, and a few
    commands in the tubes.
    """
    queue, tap = tapped
    keeping = Keeping(queue, 1)
    Finishing(queue, 5)
    queue.add_jobs("full", range(4))
    for number in range(60):
        queue.add_job("full", number)
    with Working(queue, threads=2):
        await_true(lambda: keeping.started == 1)
        for number in range(1, 40):
            if number == 20:
                tap.calls.clear()
            keeping.going[-1]()
            await_true(lambda: keeping.started == number + 1)  # noqa: B023 (it is asked here)
        calls = Counter(tap.calls)
        keeping.open()
        await_true(lambda: are_gone(queue, "full"))
    assert calls["tube: connect"] == 0
    assert calls["sqlite: BEGIN"] <= 20 * 3, calls
    assert calls["tube: watch"] + calls["tube: ignore"] <= 20 * 3, calls
    assert calls["tube: release"] <= 20 * 2, calls


def test_threads_that_get_free_do_not_wake_the_loop_for_types_at_their_bounds(
    tmp_path: Path, closes: Closes, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, gate, full = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db")), Gate(), 20

    def wait(job: JobInHand) -> None:
        gate.wait(job.type)
        job.delete()

    for number in range(full):
        queue.add_handler(f"full{number}", wait, concurrency=1)
        queue.add_jobs(f"full{number}", range(3))
    queue.add_handler("plain", JobInHand.delete)
    rings: list[Wakeup] = []
    ring = Wakeup.ring
    with Working(queue, threads=full + 1):
        await_true(lambda: len(gate.inside) == full)
        monkeypatch.setattr(Wakeup, "ring", lambda self: rings.append(self) or ring(self))
        queue.add_jobs("plain", range(1000))
        await_true(lambda: are_gone(queue, "plain"))
        rung = len(rings)
        gate.open()
        await_true(lambda: are_gone(queue, *(f"full{number}" for number in range(full))))
    assert rung < 200


@pytest.mark.parametrize(
    ("threads", "first", "late"),
    [
        (3, {"is_async": True}, {}),
        (3, {"is_async": True}, {"is_async": True}),
        (3, {}, {"concurrency": 2}),
        (3, {}, {"is_async": True}),
        (1, {"is_async": True}, {"is_async": True}),
        (1, {"is_async": True}, {}),
    ],
)
def test_a_type_that_has_no_places_since_its_handler_came_later_is_not_claimed(
    threads: int, first: dict[str, Any], late: dict[str, Any], queue: KQueue
) -> None:
    """A work runs the types that have a handler when it begins."""

    async def coroutine(job: JobInHand) -> None:
        job.delete()

    def add(type: str, is_async: bool = False, **options: Any) -> None:
        queue.add_handler(type, coroutine if is_async else JobInHand.delete, **options)

    add("first", **first)
    with Working(queue, threads=threads):
        queue.add_job("first")
        await_true(lambda: are_gone(queue, "first"))
        add("late", **late)
        id = queue.add_job("late", priority="urgent")
        for _ in range(5):
            queue.add_job("first")
            await_true(lambda: are_gone(queue, "first"))
        [row] = queue.store.get([id])
        assert (row.state, row.fence) == ("ready", 0)


def test_who_admits_what_a_limit_holds_has_the_hands_of_its_type(
    tmp_path: Path, closes: Closes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the last claim was of others, since all places of the type were taken."""
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db"))
    keeping = Keeping(queue, 2)
    queue.add_handler("plain", JobInHand.delete)
    queue.limit("full", running=5)
    queue.add_jobs("full", range(6))
    holders: list[Claimer | None] = []
    admit = queue.store.admit

    def seen(*given: Any, holder: Claimer | None = None, **more: Any) -> Admission:
        holders.append(holder)
        return admit(*given, holder=holder, **more)

    monkeypatch.setattr(queue.store, "admit", seen)
    with Working(queue, threads=8):
        await_true(lambda: keeping.started == 2)
        queue.add_jobs("plain", range(20))
        await_true(lambda: are_gone(queue, "plain"))
        monkeypatch.setattr(Dispatcher, "budget", lambda *_: None)  # it claims nothing more
        keeping.going[0]()
        await_true(lambda: bool(holders))
        monkeypatch.undo()
        keeping.open()
        await_true(lambda: are_gone(queue, "full"))
    assert {holder.of("full").hands for holder in holders if holder} == {2}


def test_limits_hold_for_types_with_other_places(queue: KQueue) -> None:
    """Of one dispatcher, whose hands for a type are its threads, or the places of its coroutines."""
    most: Counter[str] = Counter()
    running: Counter[str] = Counter()
    lock = threading.Lock()

    def begin(job: JobInHand) -> None:
        with lock:
            running[job.type] += 1
            most[job.type] = max(most[job.type], running[job.type])

    def end(job: JobInHand) -> None:
        with lock:
            running[job.type] -= 1
        job.delete()

    @queue.handler("plain")
    def plain(job: JobInHand) -> None:
        begin(job)
        end(job)

    async def coroutine(job: JobInHand) -> None:
        begin(job)
        await asyncio.sleep(0)
        end(job)

    queue.add_handler("few", coroutine, concurrency=2)
    queue.add_handler("many", coroutine, concurrency=20)
    types = ("plain", "few", "many")
    for type in types:
        queue.limit(type, running=3)
        queue.add_jobs(type, range(30))
    with Working(queue, threads=8):
        await_true(lambda: are_gone(queue, *types))
    assert all(1 <= most[type] <= 3 for type in types), most


def test_a_coroutine_function_that_comes_later_takes_no_place_of_another(queue: KQueue) -> None:
    """It has no part in the dispatcher that works already, and is left to the next one."""
    ran: list[str] = []

    async def coroutine(job: JobInHand) -> None:
        ran.append(job.type)
        job.delete()

    queue.add_handler("there", coroutine, concurrency=1)
    with Working(queue):
        queue.add_job("there")
        await_true(lambda: ran == ["there"])
        queue.add_handler("later", coroutine, concurrency=1)
        later = queue.add_job("later")
        queue.add_job("there")
        await_true(lambda: ran == ["there", "there"])
        assert queue.store.get([later])[0].state == "ready"
    assert queue.work(wait=False).deleted == 1
    assert ran == ["there", "there", "later"]
