"""The health file is fresh as long as loops get on, and no longer."""

import json
import os
import signal
import stat
from pathlib import Path

import pytest

from kqueue.execution.inflight import InflightJobs
from kqueue.loops.registry import Loop
from kqueue.worker.health import HealthFile
from kqueue.worker.liveness import QUIET_S, Liveness, is_alive
from tests.tubes import await_true
from tests.worker.ticking import TICKING, grows_old, ticks
from tests.worker.works import Works, health


class FakeLoop:
    def __init__(self, thread: int) -> None:
        self.thread, self.turns, self.count, self.turned_at = thread, 0, 0, 0.0


class FakeJobs:
    def __init__(self, thread: int, lease_left: float | None) -> None:
        self.thread, self.left = thread, lease_left

    def at_work(self, now: float) -> set[int]:
        return {self.thread} if (self.left or 0.0) > 0 else set()


class FakeRegistry:
    def __init__(self, *loops: FakeLoop) -> None:
        self._loops, self.held = list(loops), list[FakeJobs]()
        self.event_loops: set[FakeLoop] = set()
        self.threads: set[FakeLoop] = set()

    def loops(self) -> list[Loop]:
        return list(self._loops)  # type: ignore[arg-type]

    def in_hand(self) -> list[InflightJobs]:
        return list(self.held)  # type: ignore[arg-type]


def test_a_loop_gets_on_as_long_as_it_makes_turns() -> None:
    one, other = FakeLoop(1), FakeLoop(2)
    progress = Liveness(FakeRegistry(one, other))  # type: ignore[arg-type]
    assert progress.quiet_s(100.0) == 0.0
    one.turns += 1
    assert progress.quiet_s(101.0) == 1.0
    other.turns += 1
    assert progress.quiet_s(103.0) == 2.0
    other.turns += 1
    assert progress.quiet_s(110.0) == 9.0


def test_a_loop_whose_handler_runs_gets_on_while_its_lease_holds() -> None:
    one = FakeLoop(1)
    registry = FakeRegistry(one, FakeLoop(2))
    progress = Liveness(registry)  # type: ignore[arg-type]
    assert progress.quiet_s(100.0) == 0.0
    registry.held = [FakeJobs(1, 5.0), FakeJobs(2, 0.1)]
    assert progress.quiet_s(170.0) == 0.0
    registry.held = [FakeJobs(1, 5.0), FakeJobs(2, -0.1)]
    assert progress.quiet_s(171.0) == 71.0
    registry.held = [FakeJobs(1, 5.0), FakeJobs(2, None)]
    assert progress.quiet_s(172.0) == 72.0


def test_an_event_loop_gets_on_as_long_as_it_turns_or_the_coroutine_that_keeps_it_has_its_lease() -> None:
    one, event_loop = FakeLoop(1), FakeLoop(2)
    registry = FakeRegistry(one)
    registry.event_loops.add(event_loop)
    progress = Liveness(registry)  # type: ignore[arg-type]
    assert progress.quiet_s(100.0) == 0.0
    one.turns += 1
    assert progress.quiet_s(109.0) == 9.0
    event_loop.turns += 1
    assert progress.quiet_s(110.0) == 1.0
    registry.held = [FakeJobs(2, 0.1)]
    one.turns += 1
    assert progress.quiet_s(150.0) == 0.0
    registry.held = [FakeJobs(2, -0.1)]
    assert progress.quiet_s(151.0) == 41.0


def test_a_dispatchers_thread_gets_on_as_long_as_it_turns_or_its_job_has_its_lease() -> None:
    dispatcher, one, other = FakeLoop(1), FakeLoop(2), FakeLoop(3)
    registry = FakeRegistry(dispatcher)
    registry.threads |= {one, other}
    progress = Liveness(registry)  # type: ignore[arg-type]
    assert progress.quiet_s(100.0) == 0.0
    registry.held = [FakeJobs(2, 0.1)]
    dispatcher.turns, other.turns = 1, 1
    assert progress.quiet_s(170.0) == 0.0
    registry.held = [FakeJobs(2, -0.1)]
    dispatcher.turns, other.turns = 2, 2
    assert progress.quiet_s(171.0) == 71.0


def test_a_thread_without_its_loop_does_not_get_on() -> None:
    progress = Liveness(FakeRegistry())  # type: ignore[arg-type]
    assert progress.quiet_s(100.0) == 0.0
    assert progress.quiet_s(100.0, [98.0, 60.0]) == 40.0


def test_a_worker_is_alive_if_all_get_on() -> None:
    assert is_alive([0.0, QUIET_S - 0.1])
    assert not is_alive([0.0, QUIET_S])
    assert not is_alive([])


def test_the_file_is_replaced_as_a_whole_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "health"
    file = HealthFile(str(path))
    file.write({"time": 1.0, "pid": 1, "jobs": 0, "children": []})  # of a worker that was killed
    file.prepare()
    assert list(tmp_path.iterdir()) == []
    file.write({"jobs": 1})
    with path.open() as old:
        file.write({"jobs": 2})
        assert old.read() == '{"jobs": 1}\n'
    assert json.loads(path.read_text()) == {"jobs": 2}
    file.remove()
    file.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["missing/health", "a folder", "a file/health", "a pipe", "notes"])
def test_a_file_that_cannot_be_written_is_said_before_any_work(works: Works, path: str) -> None:
    (works.folder / "a folder").mkdir()
    (works.folder / "a file").touch()
    os.mkfifo(works.folder / "a pipe")
    (works.folder / "notes").write_text("of somebody else")
    works.add("quick")
    line = works.refused("--health-file", path)
    assert line.startswith(f"kqueue: --health-file: {works.folder / path} ")
    assert not works.runs()
    assert (works.folder / "notes").read_text() == "of somebody else"
    assert stat.S_ISFIFO((works.folder / "a pipe").stat().st_mode)


def test_the_file_says_who_lives_and_how_much_was_done(works: Works) -> None:
    path = works.folder / "health"
    works.add(*["quick"] * 10)
    with works.worker("--processes", "2", "--health-file", "health") as worker:
        children = worker.await_children(2)
        await_true(lambda: (health(path) or {}).get("jobs") == 10)
        values = health(path)
        assert values is not None
        assert set(values) == {"time", "pid", "jobs", "children"}
        assert values["pid"] == worker.pid
        assert sorted(child["pid"] for child in values["children"]) == sorted(children)
        assert sum(child["jobs"] for child in values["children"]) == 10
        await_true(lambda: (health(path) or values)["time"] > values["time"])
        assert worker.stop() == 0
    assert health(path) is None


def test_the_file_grows_old_when_a_child_is_stopped_and_is_fresh_when_it_goes_on(works: Works) -> None:
    path = works.folder / "health"
    with works.worker("--processes", "2", "--health-file", "health", patch=TICKING) as worker:
        children = worker.await_children(2)
        await_true(lambda: health(path) is not None)
        os.kill(children[0], signal.SIGSTOP)
        grows_old(works)
        stale = path.stat().st_mtime_ns
        os.kill(children[0], signal.SIGCONT)
        await_true(lambda: path.stat().st_mtime_ns > stale)
        assert worker.stop() == 0


def test_the_file_grows_old_when_a_handler_hangs_past_its_lease(works: Works) -> None:
    """The process is there, and its other loop gets on."""
    path = works.folder / "health"
    works.add("wait", ttr=1)
    with works.worker("--threads", "2", "--health-file", "health", patch=TICKING) as worker:
        await_true(lambda: health(path) is not None)
        grows_old(works)
        stale = path.stat().st_mtime_ns
        works.let_go()
        await_true(lambda: path.stat().st_mtime_ns > stale)
        assert worker.stop() == 0


def test_the_file_grows_old_when_a_silent_process_only_has_its_lease_renewed(works: Works) -> None:
    """The renewer renews for a handler that keeps the interpreter's lock and hangs: that is no sign of life."""
    path = works.folder / "health"
    (id,) = works.add("hold the lock", type="renewed", ttr=2)
    with works.worker("--health-file", "health", "--grace", "0", patch=f"{TICKING}\nf.GIVE_UP_S = 0.1") as worker:
        works.await_begun(id)
        await_true(lambda: health(path) is not None)
        grows_old(works)
        job = works.queue.get_job(id)
        assert job is not None
        assert job.state == "running"
        assert job.fence == 1
        assert worker.stop() == 1


@pytest.mark.parametrize("what", ["wait", "hold the lock"])
def test_the_file_stays_fresh_while_a_long_handler_has_its_lease(works: Works, what: str) -> None:
    """Also of one that keeps the interpreter's lock, so that its process can say nothing."""
    path = works.folder / "health"
    (id,) = works.add(what)
    with works.worker("--health-file", "health", "--grace", "0", patch=f"{TICKING}\nf.GIVE_UP_S = 0.1") as worker:
        works.await_begun(id)
        await_true(lambda: health(path) is not None)
        before = ticks(works)
        await_true(lambda: ticks(works) >= before + 12)
        last = path.stat().st_mtime_ns
        await_true(lambda: path.stat().st_mtime_ns > last)
        assert worker.stop() == 1
