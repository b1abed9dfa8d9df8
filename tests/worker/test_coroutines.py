"""A worker whose handlers are coroutines that hang, swallow, keep their event loop or cancel each other."""

from collections import Counter

from tests.tubes import await_true
from tests.worker.ticking import TICKING, grows_old, ticks
from tests.worker.works import Works, health

APP = """
import asyncio, os, sys, time
from pathlib import Path

import kqueue.loops.loop_hands
from kqueue import KQueue
from tests.torture.ledger import Ledger

ledger = Ledger(Path("done.ledger"))
queue = KQueue("sqlite:///jobs.db?busy_timeout=1", sweep_interval=1, max_tries=2, retry_delay=0)
if Path("few").exists() and "child" in sys.argv[0]:
    few = int(Path("few").read_text())
    sys.modules["__main__"].MOST_ABANDONED = kqueue.loops.loop_hands.MOST_ABANDONED = few


@queue.handler("t", concurrency=int(os.environ["PLACES"]))
async def handle(job):
    ledger.write("begin", id=job.id, fence=job.fence, tries=job.tries, pid=os.getpid(), do=job.payload)
    forever = asyncio.get_running_loop().create_future()
    match job.payload:
        case "hang":
            await forever
        case "swallow":
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass
        case "keep":
            while not Path("go").exists():
                time.sleep(0.005)
        case "cancel" if job.tries == 1:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
    await asyncio.sleep(0)
    job.delete()
"""


def prepare(works: Works, places: int) -> None:
    (works.folder / "app.py").write_text(APP)
    works.environment["PLACES"] = str(places)


def test_eleven_silent_jobs_are_started_twice_each_and_the_worker_is_well(works: Works) -> None:
    prepare(works, 6)
    path = works.folder / "health"
    silent = works.add(*["hang"] * 11, ttr=2, priority="urgent")  # so that a machine may stand still for a while
    quick = works.add(*["quick"] * 5)
    with works.worker("--health-file", "health", patch=TICKING) as worker:
        await_true(lambda: {state: n for state, n in works.queue.counts().items() if n} == {"dead": 11})
        assert works.runs() == Counter({**dict.fromkeys(silent, 2), **dict.fromkeys(quick, 1)})
        before = ticks(works)
        await_true(lambda: ticks(works) >= before + 12)
        last = path.stat().st_mtime_ns
        await_true(lambda: path.stat().st_mtime_ns > last)
        assert worker.stop() == 0


def test_the_health_file_grows_old_while_a_coroutine_keeps_the_event_loop(works: Works) -> None:
    """The threads of the process get on meanwhile, and its job counts a failed try."""
    prepare(works, 2)
    path = works.folder / "health"
    (keeps,) = works.add("keep", ttr=1)
    with works.worker("--health-file", "health", patch=TICKING) as worker:
        await_true(lambda: health(path) is not None)
        works.await_begun(keeps)
        grows_old(works)
        [row] = works.queue.store.get([keeps])
        assert "keeps the event loop" in (row.reason or "")
        stale = path.stat().st_mtime_ns
        works.let_go()
        await_true(lambda: path.stat().st_mtime_ns > stale)
        works.await_empty()
        assert worker.stop() == 0


def test_a_worker_stops_at_once_although_tasks_were_cancelled_before_their_first_step(works: Works) -> None:
    prepare(works, 10)
    works.add(*["cancel"] * 40)
    with works.worker("--grace", "3000") as worker:
        works.await_empty()
        assert worker.stop() == 0
    assert max(works.runs().values()) <= 2


def test_a_child_in_which_too_many_do_not_end_is_replaced(works: Works) -> None:
    prepare(works, 2)
    (works.folder / "few").write_text("3")
    swallowing = works.add(*["swallow"] * 4, ttr=1, priority="urgent")
    (quick,) = works.add("quick")
    with works.worker() as worker:
        worker.await_children(2)
        await_true(lambda: works.queue.counts()["dead"] == 4)
        works.await_begun(quick)
        assert worker.stop() == 0
    assert all(works.runs()[one] >= 2 for one in swallowing)
    works.await_line("is replaced: 3 coroutines that were cancelled have not ended")
