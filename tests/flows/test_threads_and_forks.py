"""One KQueue shared by threads, and used by children after a fork, as under a pre-forking web server."""

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kqueue import JobInHand, KQueue, KQueueError
from tests.closing import Closes
from tests.flows.processes import run_in_child


def in_threads(count: int, work: Callable[[int], object]) -> None:
    errors: list[BaseException] = []

    def guarded(n: int) -> None:
        try:
            work(n)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert not any(thread.is_alive() for thread in threads)


def test_many_threads_add_at_once(queue: KQueue) -> None:
    ids: list[str] = []
    in_threads(8, lambda n: ids.extend(queue.add_job("t", [n, m]) for m in range(25)))
    assert len(set(ids)) == 200
    seen: Counter[str] = Counter()
    queue.add_handler("t", lambda job: (seen.update([str(job.payload)]), job.delete()))
    assert queue.run_jobs().deleted == 200
    assert set(seen.values()) == {1}


def test_several_threads_run_while_others_add_and_each_job_runs_once(queue: KQueue) -> None:
    seen: Counter[int] = Counter()
    tries: set[int] = set()
    done = threading.Event()

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        seen[job.payload] += 1
        tries.add(job.tries)
        job.delete()
        if len(seen) == 600:
            done.set()

    def work(n: int) -> None:
        if n < 3:
            queue.run_jobs(wait=True)
        elif n < 6:
            for start in range((n - 3) * 200, (n - 2) * 200, 20):
                queue.add_jobs("t", range(start, start + 20))
        else:
            done.wait(50)
            queue.stop()

    in_threads(7, work)
    assert seen == Counter(range(600))
    assert tries == {1}
    assert sum(queue.counts().values()) == 0


@pytest.fixture(params=["sqlite", "beanstalkd"])
def shared(request: pytest.FixtureRequest, tmp_path: Path, closes: Closes) -> KQueue:
    """A queue that several processes may share."""
    broker = request.getfixturevalue("beanstalkd").url if request.param == "beanstalkd" else None
    return closes(KQueue(store=f"sqlite:///{tmp_path}/jobs.db", broker=broker))


def test_children_use_their_parents_queue_and_the_parent_goes_on(shared: KQueue) -> None:
    shared.add_job("t", "parent")
    assert shared.counts()["ready"] == 1
    children = []
    for n in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for m in range(20):
                    shared.add_job("t", [n, m])
                shared.close()
                shared.add_jobs("t", ["after", "close"])
                status = 0
            finally:
                os._exit(status)
        children.append(child)
        shared.add_job("t", "parent")
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    shared.add_job("t", "parent")
    seen: list[Any] = []
    shared.add_handler("t", lambda job: (seen.append(job.payload), job.delete()))
    assert shared.run_jobs().deleted == 6 + 4 * 22
    assert seen.count("parent") == 6
    shared.close()


def open_files(of: str) -> set[str]:
    """The open descriptors of this process whose target contains ``of``."""
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return {f"{link} {os.readlink(link)}" for link in links if os.path.lexists(link) and of in os.readlink(link)}


def test_a_child_connects_by_itself_and_leaves_its_parents_sockets_alone(shared: KQueue) -> None:
    # Other tests' sockets may be open, and be closed by the garbage collector at any moment: only ours count.
    others = open_files("socket:")
    shared.add_job("t")
    shared.flush()
    parents = open_files("socket:") - others
    assert len(parents) == shared.broker.carries_pointers

    def child() -> None:
        inherited = open_files("socket:")
        shared.add_job("t")
        shared.flush()
        own = open_files("socket:") - inherited
        assert len(own) == shared.broker.carries_pointers
        shared.close()
        assert not own & open_files("socket:")
        assert parents <= open_files("socket:")

    assert run_in_child(child) == 0
    shared.add_job("t")
    shared.flush()
    assert parents <= open_files("socket:")
    assert shared.counts()["ready"] == 3
    shared.close()


def test_a_child_never_sees_its_parents_sqlite_connection(shared: KQueue) -> None:
    """SQLite keeps a process's locks in its memory: a connection beside an inherited one loses commits."""
    shared.add_job("t")
    files = shared.store.address.removeprefix("sqlite:///")

    def child() -> None:
        assert not open_files(files)
        shared.add_job("t")
        assert open_files(files)

    assert open_files(files)
    assert run_in_child(child) == 0
    shared.add_job("t")
    shared.close()
    assert shared.counts()["ready"] == 3
    shared.close()


def test_a_fork_while_other_threads_add_leaves_no_lock_behind(shared: KQueue) -> None:
    shared.open()
    stop = threading.Event()

    def add() -> None:
        while not stop.is_set():
            shared.add_job("t", "from a thread")

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    statuses = [run_in_child(lambda: shared.add_job("t", "from a child")) for _ in range(10)]
    stop.set()
    for thread in threads:
        thread.join(60)
    assert statuses == [0] * 10
    shared.close()


def test_a_child_may_run_jobs_while_its_parent_does(shared: KQueue, tmp_path: Path) -> None:
    shared.add_jobs("t", range(400))

    @shared.handler("t")
    def handle(job: JobInHand) -> None:
        with open(tmp_path / f"ran-{job.payload}", "a") as log:
            log.write(f"try {job.tries}\n")
        job.delete()

    children = [os.fork() for _ in range(1)]
    if children[0] == 0:
        status = 1
        try:
            shared.run_jobs()
            status = 0
        finally:
            os._exit(status)
    shared.run_jobs()
    assert os.waitpid(children[0], 0)[1] == 0
    shared.run_jobs()
    assert sorted(int(path.name[4:]) for path in tmp_path.glob("ran-*")) == list(range(400))
    # Once each. Its fence may be higher: what a slow window gives back unrun costs a fence and no try.
    assert {path.read_text() for path in tmp_path.glob("ran-*")} == {"try 1\n"}
    assert sum(shared.counts().values()) == 0
    shared.close()


@pytest.mark.parametrize("way_out", ["sys.exit", "return"])
def test_a_child_that_a_handler_forks_leaves_its_parents_window_alone(shared: KQueue, way_out: str) -> None:
    """However it leaves: it must not settle, give back or run what is in its parent's hands."""
    parent = os.getpid()
    ran: list[int] = []

    @shared.handler("t")
    def handle(job: JobInHand) -> None:
        ran.append(job.payload)
        if job.payload == 100:
            child = os.fork()
            if child == 0:
                with pytest.raises(KQueueError, match="in hand in process"):
                    job.delete()
                if way_out == "sys.exit":
                    sys.exit(7)
                return
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 7
        job.delete()

    shared.add_jobs("t", range(150))
    left_by = "nothing"
    try:
        report = shared.run_jobs()
        left_by = "return"
    except SystemExit:
        left_by = "sys.exit"
    finally:
        if os.getpid() != parent:
            os._exit(7 if left_by == way_out else 8)
    assert (report.count, report.deleted, report.lost_lease) == (150, 150, 0)
    assert ran == list(range(150))
    assert sum(shared.counts().values()) == 0
    shared.close()


def test_a_child_comes_out_of_the_loop_although_another_thread_held_its_locks(shared: KQueue) -> None:
    parent = os.getpid()
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with shared.registry.isolation._lock:
            held.set()
            let_go.wait(60)

    holder = threading.Thread(target=hold)

    @shared.handler("t")
    def handle(job: JobInHand) -> None:
        holder.start()
        held.wait(60)
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends it if it hangs
            return
        let_go.set()
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        job.delete()

    shared.add_job("t")
    try:
        report = shared.run_jobs()
    finally:
        if os.getpid() != parent:
            os._exit(7)
    holder.join()
    assert report.deleted == 1
    shared.close()


def test_a_handler_may_fork_and_the_child_may_add(shared: KQueue) -> None:
    @shared.handler("parent")
    def handle(job: JobInHand) -> None:
        assert run_in_child(lambda: shared.add_job("child")) == 0
        job.delete()

    shared.add_job("parent")
    assert shared.run_jobs().deleted == 1
    assert shared.counts("child")["ready"] == 1
    shared.close()
