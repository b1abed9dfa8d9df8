"""Leases that follow their handlers, in real processes that hog, freeze, die and fork."""

import json
import os
import queue as queues
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kqueue import Job, JobInHand, KQueue, KQueueError, LeaseLost, RetryPolicy
from kqueue.renewal.messages import Forget, Hello, LetGo, RenewalWindow, ServerReady, encode, request
from kqueue.stores import open_store
from kqueue.stores.memory.store import MemoryStore
from tests.beanstalkd import Beanstalkd
from tests.conftest import OFTEN
from tests.costs.work import at_a_still_clock
from tests.flows.conftest import MakeQueue
from tests.flows.processes import run_in_child
from tests.mongod import Mongod
from tests.renewal.peers import renewed, serving
from tests.tubes import PATIENCE_S, await_true, run

#: A lease that does not run out while the machine stalls; by the fixture ``renewing_often`` it is renewed at once.
TTR = 600
#: One that soon runs out.
SHORT = 1

pytestmark = pytest.mark.usefixtures("renewing_often")
ROOT = Path(__file__).parents[2]


class Worker:
    """A process that runs long jobs; what it says can be awaited."""

    def __init__(
        self,
        options: dict[str, Any],
        way: str,
        seconds: float,
        *,
        handler: dict[str, Any],
        renewer: int | None = None,
    ) -> None:
        told = {"way": way, "seconds": seconds, "renewer": renewer, "handler": handler, "queue": options}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.flows.long_worker", json.dumps(told)],
            cwd=ROOT,
            pass_fds=[] if renewer is None else [renewer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(OFTEN)},
        )
        self._said: queues.Queue[list[str]] = queues.Queue()
        self.lines: list[list[str]] = []
        self._listener = run(self._listen)
        self.await_word("ready")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._said.put(line.split())

    def await_word(self, word: str) -> list[str]:
        """The rest of the next line that begins with it."""
        while True:
            line = self._said.get(timeout=PATIENCE_S)
            self.lines.append(line)
            if line[0] == word:
                return line[1:]

    def said(self, word: str) -> list[list[str]]:
        """The rest of each line so far that began with it."""
        while not self._said.empty():
            self.lines.append(self._said.get())
        return [line[1:] for line in self.lines if line[0] == word]

    def tell(self) -> None:
        """Let a handler go on that hogs until told."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    @property
    def renewer(self) -> Path:
        """The folder of its renewer's process in /proc."""
        (renewer,) = renewers(self._process.pid)
        return renewer

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.tell()

    def close(self) -> None:
        """Also what is left of what it said, which goes on as long as a process that it has forked."""
        self.kill()
        self._listener.join(PATIENCE_S)


def renewers(pid: int) -> list[Path]:
    """Of a process, whichever of its threads has started them."""
    children: list[str] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread may end just now
            children += (task / "children").read_text().split()
    found = []
    for one in map(Path("/proc").joinpath, children):
        with suppress(OSError):  # another one may end just now
            if b"kqueue.renewal" in (one / "cmdline").read_bytes():
                found.append(one)
    return found


class House:
    """A store, maybe a broker, and workers on them."""

    def __init__(self, options: dict[str, Any]) -> None:
        #: Of a queue. Whatever needs a sweep gets it soon.
        self.options = {"sweep_interval": 0.1, "retry_delay": 0, **options}
        self.queue = KQueue(**self.options)
        self.workers: list[Worker] = []

    def start(self, way: str, seconds: float, /, **handler: Any) -> Worker:
        self.workers.append(Worker(self.options, way, seconds, handler=handler))
        return self.workers[-1]

    def await_renewed(self, id: str, times: int = 3) -> None:
        """Wait until its lease has begun anew so often."""
        renewed(self.queue.store, id, times)

    def job(self, id: str) -> Job:
        job = self.queue.get_job(id)
        assert job is not None
        return job

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.queue.close()


@pytest.fixture(params=["sqlite", "sqlite+beanstalkd", "mongod"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    options = {"store": f"sqlite:///{tmp_path}/jobs.db"}
    if "mongod" in request.param:
        mongod: Mongod = request.getfixturevalue("mongod")
        options["store"] = mongod.url(request.getfixturevalue("mongo_database"))
    if "beanstalkd" in request.param:
        beanstalkd: Beanstalkd = request.getfixturevalue("beanstalkd")
        options["broker"] = beanstalkd.url
    house = House(options)
    yield house
    house.close()


@pytest.fixture
def sqlite_house(tmp_path: Path) -> Iterator[House]:
    house = House({"store": f"sqlite:///{tmp_path}/jobs.db"})
    yield house
    house.close()


# -- handlers that hold the interpreter's lock ---------------------------------------------------------------


def test_a_handler_that_keeps_the_interpreters_lock_keeps_its_job(house: House) -> None:
    [id] = house.queue.add_jobs("long", ["hog"], ttr=TTR)
    hogs = house.start("hog if told", 0, auto_renew=True)
    assert hogs.await_word("start") == ["hog", "1"]
    waits = house.start("hog if told", 0, auto_renew=True)
    house.await_renewed(id)
    hogs.tell()
    hogs.await_word("end")
    await_true(lambda: house.queue.counts()["running"] == 0)
    house.queue.add_job("long", "next")
    await_true(lambda: ["next"] in hogs.said("end") + waits.said("end"))
    assert hogs.said("start")[:1] + waits.said("start") + hogs.said("start")[1:] == [["hog", "1"], ["next", "1"]]


def test_without_auto_renew_another_worker_takes_it(sqlite_house: House) -> None:
    """The control: what the test above shows is the renewer's doing."""
    house = sqlite_house
    house.options["settle_ms"] = 0  # so that its delete says that it is late
    house.queue.add_job("long", "hog", ttr=SHORT)
    hogs = house.start("hog if told", 0)
    assert hogs.await_word("start") == ["hog", "1"]
    waits = house.start("sleep", 0)
    assert waits.await_word("start") == ["hog", "2"]
    hogs.tell()
    hogs.await_word("late")


def test_the_others_of_its_window_are_neither_lost_nor_run_twice(sqlite_house: House) -> None:
    """What had ended before it waits to be settled, and stays its worker's; what was to start after it does not."""
    house = sqlite_house
    house.queue.add_jobs("long", ["warm"] * 585, ttr=TTR)
    hogs = house.start("hog if told", 0, auto_renew=True)
    await_true(lambda: house.queue.counts()["ready"] == 0)
    before = [f"before{n}" for n in range(30)]
    after = [f"after{n}" for n in range(30)]
    *_, id = house.queue.add_jobs("long", [*before, "hog"], ttr=TTR)
    house.queue.add_jobs("long", after, ttr=SHORT)
    while hogs.await_word("start")[0] != "hog":
        pass
    house.await_renewed(id)
    waits = house.start("sleep", 0, auto_renew=True)
    await_true(lambda: {one for [one] in waits.said("end")} == set(after))
    hogs.tell()
    hogs.await_word("end")
    await_true(lambda: sum(house.queue.counts().values()) == 0)
    assert Counter(one for one, _ in hogs.said("start") if one != "warm") == dict.fromkeys([*before, "hog"], 1)
    assert Counter(one for [one] in hogs.said("end") if one != "warm") == dict.fromkeys([*before, "hog"], 1)
    assert hogs.said("late") == []
    assert {one for one, _ in waits.said("start")} == set(after)
    assert Counter(one for [one] in waits.said("end")) == dict.fromkeys(after, 1)


# -- workers that die or freeze ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["sleep", "fork", "hog if told"])
def test_when_the_worker_dies_its_renewer_ends_and_another_worker_takes_the_job(
    sqlite_house: House, way: str
) -> None:
    """Although a child that the handler forked has the socket too, and lives on."""
    house = sqlite_house
    house.queue.add_job("long", "hog", ttr=SHORT)
    dies = house.start(way, 600, auto_renew=True)
    dies.await_word("start")
    if way == "fork":
        child = int(dies.await_word("child")[0])
    renewer = dies.renewer
    dies.kill()
    await_true(lambda: not renewer.exists())
    takes = house.start("sleep", 0, auto_renew=True)
    assert takes.await_word("start") == ["hog", "2"]
    takes.await_word("end")
    if way == "fork":
        os.kill(child, signal.SIGKILL)


def test_a_renewer_heeds_no_signal_that_asks_its_worker_to_end(sqlite_house: House) -> None:
    """A terminal and systemd send these to all of a group. The store's URL is not to be seen in its command."""
    house = sqlite_house
    [id] = house.queue.add_jobs("long", ["hog"], ttr=TTR)
    worker = house.start("hog if told", 0, auto_renew=True)
    worker.await_word("start")
    renewer = worker.renewer
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(int(renewer.name), number)
    house.await_renewed(id)
    assert b"sqlite" not in (renewer / "cmdline").read_bytes()
    assert worker.renewer == renewer
    worker.tell()
    worker.await_word("end")


def test_a_renewer_that_is_killed_is_replaced(sqlite_house: House) -> None:
    house = sqlite_house
    [id] = house.queue.add_jobs("long", ["a"], ttr=TTR)
    worker = house.start("wait", 0, auto_renew=True)
    worker.await_word("start")
    renewer = worker.renewer
    os.kill(int(renewer.name), signal.SIGKILL)
    await_true(lambda: not renewer.exists())
    house.await_renewed(id)
    assert worker.renewer != renewer
    worker.tell()
    worker.await_word("end")


def test_the_process_that_starts_workers_may_renew_for_all_of_them(sqlite_house: House) -> None:
    house = sqlite_house
    ids = house.queue.add_jobs("long", ["hog", "hog"], ttr=TTR)
    with serving(open_store) as server:
        for _ in ids:
            ours, theirs = socket.socketpair()
            server.add(ours)
            options, renewer = {"auto_renew": True}, theirs.fileno()
            house.workers.append(Worker(house.options, "hog if told", 0, handler=options, renewer=renewer))
            theirs.close()
        for worker in house.workers:
            worker.await_word("start")
        for id in ids:
            house.await_renewed(id)
        for worker in house.workers:
            worker.tell()
            worker.await_word("end")
            assert renewers(worker.pid) == []
            assert [tries for _, tries in worker.said("start")] == ["1"]


@pytest.mark.parametrize("house", ["sqlite+beanstalkd"], indirect=True)
def test_a_frozen_worker_keeps_its_job_for_as_long_as_it_may_run(house: House) -> None:
    house.options["settle_ms"] = 0  # so that its delete says that it is late
    [id] = house.queue.add_jobs("long", ["a"], ttr=TTR)
    freezes = house.start("wait", 0, auto_renew=True, max_runtime=3)
    freezes.await_word("start")
    house.await_renewed(id, 1)
    freezes.signal(signal.SIGSTOP)
    takes = house.start("sleep", 0)
    assert takes.await_word("start") == ["a", "2"]
    takes.await_word("end")
    freezes.tell()
    freezes.signal(signal.SIGCONT)
    freezes.await_word("late")


# -- in one process, on each pair of store and broker --------------------------------------------------------


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that asks learns what is in the store within 50 ms, not a second."""
    monkeypatch.setattr("kqueue.execution.lease_check.LOOK_S", 0.05)


@pytest.mark.usefixtures("looks_often")
def test_a_handler_sees_that_an_operator_has_deleted_its_job(make_queue: MakeQueue) -> None:
    sees_a_delete(make_queue(), make_queue(), auto_renew=False)


@pytest.mark.usefixtures("looks_often")
def test_a_handler_whose_lease_is_renewed_sees_it_too(sqlite_house: House) -> None:
    with KQueue(**sqlite_house.options) as operator:
        sees_a_delete(sqlite_house.queue, operator, auto_renew=True)


def sees_a_delete(queue: KQueue, operator: KQueue, auto_renew: bool) -> None:
    seen = []

    @queue.handler("long", auto_renew=auto_renew)
    def long(job: JobInHand) -> None:
        seen.append((job.lease_lost, job.cancelled))
        assert operator.delete_job(job.id)
        await_true(lambda: job.lease_lost)
        seen.append((job.lease_lost, job.cancelled))
        with pytest.raises(LeaseLost):
            job.delete()

    queue.add_job("long")
    assert queue.run_jobs().lost_lease == 1
    assert seen == [(False, False), (True, True)]


def test_a_handler_sees_that_its_own_queue_was_told_to_delete_its_job(queue: KQueue) -> None:
    seen = []

    @queue.handler("long", auto_renew=True)
    def long(job: JobInHand) -> None:
        assert not job.cancelled
        run(lambda: queue.delete_job(job.id)).join()
        seen.append((job.lease_lost, job.cancelled))
        job.delete()  # which changes nothing

    queue.add_job("long")
    assert queue.run_jobs().deleted == 1
    assert seen == [(True, True)]


def test_a_handler_that_has_settled_its_job_has_not_lost_it(queue: KQueue) -> None:
    seen: list[Any] = []

    @queue.handler("long")
    def long(job: JobInHand) -> None:
        job.delete()
        seen.extend([job, job.lease_lost, job.cancelled])

    queue.add_job("long")
    queue.run_jobs()
    job, *asked = seen
    assert asked == [False, False]
    assert (job.lease_lost, job.cancelled) == (True, False)  # its run is over


def is_renewed(job: JobInHand) -> Callable[[], bool]:
    """On a slow machine the new lease may be over too when it is looked at."""

    def renew() -> bool:
        job.renew()
        return not job.lease_lost

    return renew


@pytest.mark.usefixtures("looks_often")
def test_a_handler_sees_that_another_worker_has_taken_its_job(make_queue: MakeQueue) -> None:
    queue, other = make_queue(retry_delay=0), make_queue(retry_delay=0)
    seen = []

    @queue.handler("long")
    def long(job: JobInHand) -> None:
        await_true(lambda: job.lease_lost)  # its time is over
        await_true(is_renewed(job))
        assert not job.cancelled
        await_true(lambda: other.sweep().recovered == 1)
        other.run_jobs(count_limit=1)
        seen.append((job.lease_lost, job.cancelled))

    @other.handler("long")
    def takes(job: JobInHand) -> None:
        job.retry("not for me", delay=600)

    queue.add_job("long", ttr=1)
    assert queue.run_jobs().lost_lease == 1
    await_true(lambda: len(seen) == 1)
    assert seen == [(True, False)]


def test_a_run_that_takes_too_long_is_retried_with_that_reason(make_queue: MakeQueue) -> None:
    queue, other = make_queue(retry_delay=0, sweep_interval=0.1), make_queue(sweep_interval=0.1)
    seen: list[Any] = []

    @queue.handler("long", auto_renew=True, max_runtime=0.2)
    def long(job: JobInHand) -> None:
        await_true(lambda: job.cancelled)
        now = queue.get_job(job.id)
        assert now is not None
        seen.extend([job.lease_lost, now.state, now.reason])
        job.delete()

    job_id = queue.add_job("long")
    report = queue.run_jobs(count_limit=1)
    assert seen == [True, "ready", "ran longer than max_runtime (0.2 s)"]
    assert (report.count, report.deleted, report.lost_lease, report.retried) == (1, 0, 0, 1)
    other.add_handler("long", lambda job: job.delete())
    assert other.run_jobs(count_limit=1, wait=True).deleted == 1
    assert queue.get_job(job_id) is None


@pytest.mark.parametrize("store", ["memory:", "sqlite:///{}/jobs.db"])
def test_a_run_that_takes_too_long_may_be_the_last(store: str, tmp_path: Path) -> None:
    queue = KQueue(store=store.format(tmp_path), max_tries=1)
    queue.add_handler("long", lambda job: await_true(lambda: job.cancelled), auto_renew=True, max_runtime=0.2)
    job_id = queue.add_job("long")
    report = queue.run_jobs()
    assert (report.dead, report.lost_lease) == (1, 0)
    job = queue.get_job(job_id)
    assert job is not None
    assert (job.state, job.reason) == ("dead", "ran longer than max_runtime (0.2 s)")
    queue.close()


@pytest.mark.parametrize("store", ["memory:", "sqlite:///{}/jobs.db"])
def test_threads_share_a_renewer_and_windows_of_fast_jobs_go_by(store: str, tmp_path: Path) -> None:
    queue, others = KQueue(store=store.format(tmp_path)), renewers(os.getpid())
    together = threading.Barrier(2)

    @queue.handler("long", auto_renew=True)
    def long(job: JobInHand) -> None:
        together.wait(PATIENCE_S)
        renewed(queue.store, job.id, 2)
        job.delete()

    queue.add_handler("fast", JobInHand.delete, auto_renew=True)
    queue.add_jobs("long", [1, 2], ttr=TTR)
    loops = [run(lambda: queue.run_jobs(count_limit=1)) for _ in range(2)]
    for loop in loops:
        loop.join(PATIENCE_S)
    ours = [renewer for renewer in renewers(os.getpid()) if renewer not in others]
    assert len(ours) == (not isinstance(queue.store, MemoryStore))
    queue.add_jobs("fast", range(1000))
    report = queue.run_jobs()
    assert (report.deleted, report.lost_lease, sum(queue.counts().values())) == (1000, 0, 0)
    queue.close()
    assert not any(renewer.exists() for renewer in ours)


def test_a_handlers_child_has_a_renewer_of_its_own(sqlite_house: House) -> None:
    queue = sqlite_house.queue

    def child() -> None:
        queue.remove_handler("long")
        queue.add_handler("inner", lambda job: (renewed(queue.store, job.id, 2), job.delete()), auto_renew=True)
        assert queue.run_jobs().deleted == 1
        queue.close()

    @queue.handler("long", auto_renew=True)
    def long(job: JobInHand) -> None:
        queue.add_job("inner", ttr=TTR)
        assert run_in_child(child) == 0
        assert not job.lease_lost
        job.delete()

    job_id = queue.add_job("long", ttr=TTR)
    assert queue.run_jobs(count_limit=1).deleted == 1
    assert queue.get_job(job_id) is None


def test_a_child_that_comes_out_of_its_handler_lets_go_of_nothing(sqlite_house: House) -> None:
    queue = sqlite_house.queue
    children = []

    @queue.handler("long", auto_renew=True)
    def long(job: JobInHand) -> None:
        child = os.fork()
        if child == 0:
            return
        children.append(child)
        os.waitpid(child, 0)
        renewed(queue.store, job.id, 2)
        assert not job.lease_lost
        job.delete()

    queue.add_job("long", ttr=TTR)
    parent = os.getpid()
    try:
        report = queue.run_jobs()
    finally:
        if os.getpid() != parent:
            os._exit(0)
    assert report.deleted == 1


def test_a_store_that_is_locked_for_a_while_costs_nothing_and_for_a_lease_the_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jobs.db"

    @contextmanager
    def locked() -> Iterator[None]:
        with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            yield

    with KQueue(store=f"sqlite:///{path}?busy_timeout=0.05") as queue:

        @queue.handler("short", auto_renew=True)
        @queue.handler("long", auto_renew=True)
        def handle(job: JobInHand) -> None:
            caplog.clear()
            with locked():
                if job.type == "long":
                    await_true(lambda: "leases are not renewed, and soon tried again" in caplog.text)
                else:
                    await_true(lambda: job.lease_lost)
            if job.type == "long":
                renewed(queue.store, job.id, 2)
                assert not job.lease_lost
            assert not job.cancelled
            job.delete()  # nobody has taken it

        queue.add_job("long", ttr=TTR)
        queue.add_job("short", ttr=SHORT)
        assert queue.run_jobs().deleted == 2


def test_where_no_renewer_can_be_had_no_handler_starts_and_its_job_is_given_back(
    sqlite_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(starter: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("kqueue.renewal.starting.Starter.connect", no_more)
    queue, started = sqlite_house.queue, []
    queue.add_handler("long", started.append, auto_renew=True)
    job_id = queue.add_job("long")
    with pytest.raises(KQueueError, match="no renewer of leases can be started: .*Too many open files"):
        queue.run_jobs()
    assert started == []
    assert (sqlite_house.job(job_id).state, sqlite_house.job(job_id).tries) == ("ready", 0)


# -- what it costs -------------------------------------------------------------------------------------------


def test_a_window_costs_one_word_when_it_begins_and_one_when_it_ends(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with at_a_still_clock(f"sqlite:///{tmp_path}/jobs.db") as queue:
        queue.parts.renewer.offer(theirs.detach())
        queue.add_handler("noop", JobInHand.delete, auto_renew=True, max_runtime=60)
        queue.add_jobs("noop", range(1000))
        ours.sendall(encode(ServerReady()))
        assert queue.run_jobs().deleted == 1000
    heard = b"".join(iter(lambda: ours.recv(65536), b""))
    ours.close()
    words = [request(line) for line in heard.splitlines()]
    sizes = [word.size for word in words if isinstance(word, RenewalWindow)]
    assert sizes == [1, 8, 64, 512, 415]
    assert Counter(map(type, words)) == {Hello: 1, Forget: 1, RenewalWindow: len(sizes), LetGo: len(sizes)}


def test_a_queue_that_does_not_use_it_starts_nothing(queue: KQueue) -> None:
    queue.add_handler("plain", JobInHand.delete)
    queue.add_handler("kept", JobInHand.delete, auto_renew=True)
    queue.add_jobs("plain", range(10))
    threads, others = own_threads(), renewers(os.getpid())
    queue.run_jobs()
    assert set(renewers(os.getpid())) <= set(others)
    assert own_threads() <= threads + 1


def own_threads() -> int:
    """How many there are, but for those of MongoDB's driver, which come when it has looked at its server."""
    return sum("pymongo" not in thread.name for thread in threading.enumerate())


def test_a_delay_function_is_not_asked_before_a_run_has_failed(make_queue: MakeQueue) -> None:
    asked: list[object] = []
    queue = make_queue()
    queue.options("t", retry=RetryPolicy(delay=lambda tries, error: asked.append(error) or 1.0))
    queue.add_handler("t", lambda job: job.delete(), auto_renew=True, max_runtime=600)
    queue.add_jobs("t", range(3))
    assert queue.run_jobs().deleted == 3
    assert asked == []
