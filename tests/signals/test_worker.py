"""What signals do to a whole ``kqueue worker``: real processes, stopped, continued and orphaned."""

import ctypes
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.tubes import await_true
from tests.worker.conftest import make_works, works
from tests.worker.works import Works, is_there

__all__ = ["make_works", "works"]


def state(pid: int) -> str:
    """``T`` if it is stopped, ``Z`` for a zombie."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_ctrl_z_stops_all_and_continue_continues_all(works: Works) -> None:
    """Else leases that the parent renews run out while handlers go on, and their jobs start twice."""
    (id,) = works.add("wait", type="renewed", ttr=600)
    with works.worker("--processes", "2") as worker:
        children = worker.await_children(2)
        works.await_begun(id)
        os.killpg(worker.pid, signal.SIGTSTP)  # as a terminal does
        await_true(lambda: [state(pid) for pid in (worker.pid, *children)] == ["T", "T", "T"])
        os.killpg(worker.pid, signal.SIGCONT)
        await_true(lambda: "T" not in [state(pid) for pid in (worker.pid, *children)])
        works.let_go()
        works.await_empty()
        assert worker.stop() == 0
    assert works.runs() == {id: 1}


def test_a_worker_that_is_killed_while_it_stands_still_leaves_no_process(works: Works) -> None:
    with works.worker() as worker:
        (child,) = worker.await_children(1)
        worker.tell(signal.SIGTSTP)
        await_true(lambda: state(worker.pid) == state(child) == "T")
        worker.tell(signal.SIGKILL)
        worker.status()
        await_true(lambda: not is_there(child))


def test_a_terminal_that_goes_ends_a_worker_as_sigterm_does(works: Works) -> None:
    (id,) = works.add("wait")
    with works.worker() as worker:
        works.await_begun(id)
        worker.tell(signal.SIGHUP)
        works.await_line("stopping")
        works.let_go()
        assert worker.status() == 0
    works.await_empty()


def test_a_handler_that_raises_keyboard_interrupt_again_and_again_ends_dead(works: Works) -> None:
    app = (works.folder / "app.py").read_text()
    app += """
from kqueue import RetryPolicy

@queue.handler("interrupts", retry=RetryPolicy(max_tries=3, delay=0))
def interrupt(job):
    raise KeyboardInterrupt
"""
    (works.folder / "app.py").write_text(app)
    (id,) = works.add(None, type="interrupts")
    (other,) = works.add("quick")
    with works.worker() as worker:
        await_true(lambda: works.queue.counts("interrupts")["dead"] == 1)
        await_true(lambda: works.queue.get_job(other) is None)
        assert worker.stop() == 0
    job = works.queue.get_job(id)
    assert job is not None
    assert (job.tries, job.reason) == (3, "the handler raised KeyboardInterrupt")


def subreaper() -> bool:
    """Whether a process may be asked to be what PID 1 is in a container."""
    try:
        return ctypes.CDLL(None).prctl(37, ctypes.byref(ctypes.c_int()), 0, 0, 0) == 0
    except (AttributeError, OSError):
        return False


@pytest.mark.skipif(not subreaper(), reason="no Linux that lets a process adopt orphans")
def test_as_pid_1_the_parent_waits_for_orphans(works: Works) -> None:
    """What a handler's program has left behind becomes a child of PID 1, and stays a zombie there."""
    app = (works.folder / "app.py").read_text()
    app += """
import subprocess

@queue.handler("leaves", delete_on_success=True)
def leave(job):
    # Its shell ends at once, and sleep has no parent then.
    pid = subprocess.run(["sh", "-c", "sleep 0.1 >&- & echo $!"], stdout=subprocess.PIPE).stdout
    Path("orphan.new").write_bytes(pid)
    Path("orphan.new").rename("orphan")
"""
    (works.folder / "app.py").write_text(app)
    works.add(None, type="leaves")
    patch = "import ctypes; assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0"  # PR_SET_CHILD_SUBREAPER
    with works.worker(patch=patch) as worker:
        orphan = works.folder / "orphan"
        await_true(orphan.exists)
        pid = int(orphan.read_text())
        await_true(lambda: not Path(f"/proc/{pid}").exists())  # a zombie is still there
        assert worker.stop() == 0


def test_closed_standard_streams_go_nowhere(works: Works) -> None:
    """They were the database's, or read-only, and each handler that prints failed."""
    app = (works.folder / "app.py").read_text()
    app += """
@queue.handler("prints", delete_on_success=True)
def show(job):
    print("seen", flush=True)
    sys.stderr.write("seen too")
    os.write(1, b"raw")
    os.write(2, b"raw")
    Path("printed").write_text(os.readlink("/proc/self/fd/1"))
"""
    (works.folder / "app.py").write_text(app)
    works.add(None, type="prints")
    patch = """
import os, sys
for number in range(3):
    try: os.close(number)
    except OSError: pass
sys.stdin = sys.stdout = sys.stderr = None
"""
    with works.worker(patch=patch) as worker:
        await_true((works.folder / "printed").exists)
        works.await_empty()
        assert worker.stop() == 0
    assert (works.folder / "printed").read_text() == os.devnull
    with closing(sqlite3.connect(works.folder / "jobs.db")) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
