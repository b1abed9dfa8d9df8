"""What signals do to ``kqueue run``, and what it does where nothing can be opened."""

import os
import resource
import signal
import subprocess
import sys
import threading
import tracemalloc  # noqa: F401 (pytest imports it when something is told of: there may be no files then)
from pathlib import Path

import pytest

from kqueue import KQueue, KQueueError
from kqueue.model.job import JobInHand
from tests.shop import APP, PATIENCE_S, Shop
from tests.tubes import await_true
from tests.worker.works import is_there

STARTS = """
import subprocess
import sys
from pathlib import Path

@queue.handler("starts", delete_on_success=True)
def start(job):
    process = subprocess.Popen([sys.executable, "awaits.py"])
    Path("pids.new").write_text(f"{os.getpid()} {process.pid}")
    Path("pids.new").rename("pids")
    print("ended", process.wait(), flush=True)
"""


#: No shell: one that is stopped while it starts another process does not count as stopped before that has begun.
AWAITS = """
import os
import time

while os.path.exists("shop.py") and not os.path.exists("go"):  # its folder may be gone first
    time.sleep(0.01)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    (shop.folder / "shop.py").write_text("import os\n" + APP + STARTS)
    (shop.folder / "awaits.py").write_text(AWAITS)
    return shop


def await_pids(shop: Shop) -> tuple[int, int]:
    """(the process that runs the job, what its handler has started)."""
    await_true((shop.folder / "pids").exists)
    runner, program = map(int, (shop.folder / "pids").read_text().split())
    return runner, program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_a_handler_has_started_is_spared(shop: Shop, number: signal.Signals) -> None:
    """Ctrl-C goes to all of the terminal's foreground group."""
    shop.ids("starts")
    with shop.start("run", "--app", "shop:queue", "--wait", start_new_session=True) as process:
        await_pids(shop)
        os.killpg(process.pid, number)
        (shop.folder / "go").touch()
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("ended 0\n")
    assert "deleted 1" in out


def test_ctrl_z_stops_the_run_with_all_that_it_has_started(shop: Shop) -> None:
    shop.ids("starts")
    with shop.start("run", "--app", "shop:queue", start_new_session=True) as process:
        runner, program = await_pids(shop)
        os.killpg(process.pid, signal.SIGTSTP)
        pids = (process.pid, runner, program)
        await_true(lambda: [state(pid) for pid in pids] == ["T", "T", "T"])
        os.killpg(process.pid, signal.SIGCONT)
        (shop.folder / "go").touch()
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out.splitlines()[0]) == (0, "ended 0")


def test_a_run_that_is_killed_leaves_no_process_that_runs_jobs(shop: Shop) -> None:
    shop.ids("starts")
    with shop.start("run", "--app", "shop:queue", start_new_session=True) as process:
        runner, _ = await_pids(shop)
        process.kill()
        await_true(lambda: not is_there(runner))
        (shop.folder / "go").touch()


def test_a_run_ends_as_its_jobs_end_it(shop: Shop) -> None:
    """A job that kills its process is seen by whoever has started the run."""
    dies = """
@queue.handler("dies")
def die(job):
    os.kill(os.getpid(), 9)
"""
    (shop.folder / "shop.py").write_text("import os\n" + APP + dies)
    shop.ids("dies")
    assert shop.kqueue("run", "--app", "shop:queue").returncode == -signal.SIGKILL


def test_nohup_keeps_a_run(shop: Shop) -> None:
    shop.ids("greet", '"Ada"')  # first: a run makes no store
    with subprocess.Popen(
        ["nohup", sys.executable, "-m", "kqueue", "run", "--app", "shop:queue", "--wait"],
        cwd=shop.folder,
        env=shop.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hello Ada\n"
        process.send_signal(signal.SIGHUP)
        shop.ids("greet", '"Bea"')
        assert process.stdout.readline() == "hello Bea\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# -- nothing can be opened -----------------------------------------------------------------------------------


@pytest.fixture
def crowded(tmp_path: Path):
    """A queue with a job, in a process that may open so many more files as it is told."""
    queue = KQueue(f"sqlite:///{tmp_path}/jobs.db")
    queue.add_job("t")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def leave(files: int) -> None:
        # All numbers below the limit that are free are taken by "taken".
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in taken:
            os.close(one)
        taken.clear()
        if files < 0:
            return
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        for one in taken[len(taken) - min(files, len(taken)) :]:
            os.close(one)
        del taken[len(taken) - min(files, len(taken)) :]

    taken: list[int] = []
    yield queue, leave
    leave(-1)
    queue.close()


# Python's own: an event loop that finds no file for its pipe leaves itself unclosed.
@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
@pytest.mark.filterwarnings("ignore:.*BaseEventLoop.__del__:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["plain", "async", "renewed"])
@pytest.mark.parametrize("files", [0, 2, 4, *(pytest.param(n, marks=pytest.mark.proof) for n in range(1, 13))])
def test_a_loop_that_waits_for_jobs_waits_for_files_too(crowded, kind: str, files: int, caplog) -> None:
    """Whatever of the first things that it opens cannot be opened."""
    queue, leave = crowded
    ran: list[str] = []

    def handle(job: JobInHand) -> None:
        ran.append(job.id)
        job.delete()
        queue.stop()

    async def handle_async(job: JobInHand) -> None:
        handle(job)

    queue.add_handler("t", handle_async if kind == "async" else handle, auto_renew=kind == "renewed")
    queue.close()
    leave(files)
    ended = threading.Event()

    def relieve() -> None:
        await_true(lambda: bool(caplog.records) or ended.is_set())
        leave(-1)

    helper = threading.Thread(target=relieve)
    helper.start()
    try:
        report = queue.run_jobs(wait=True)
    finally:
        ended.set()
        helper.join()
    assert (report.deleted, len(ran)) == (1, 1)


def test_a_loop_that_does_not_wait_says_what_its_process_lacks(crowded) -> None:
    queue, leave = crowded
    queue.add_handler("t", lambda job: job.delete())
    leave(0)
    with pytest.raises(KQueueError, match="ulimit -n"):
        queue.run_jobs()


def test_a_stop_ends_a_loop_that_waits_for_files(crowded, caplog) -> None:
    queue, leave = crowded
    queue.add_handler("t", lambda job: job.delete())
    leave(0)

    def stop() -> None:
        await_true(lambda: bool(caplog.records))
        queue.stop()

    helper = threading.Thread(target=stop)
    helper.start()
    report = queue.run_jobs(wait=True)
    helper.join()
    assert report.count == 0
