"""What a process says that it serves, and what it does with a handler that comes after its start."""

from kqueue import JobInHand, KQueue
from tests.tubes import await_true
from tests.worker.works import Works

LATER = """
from app import queue


@queue.on_start
def add():
    for type in ("late", "later"):
        queue.add_handler(type, lambda job: job.delete())
"""


def test_a_handler_that_comes_later_is_not_served_in_spite_of_type(works: Works) -> None:
    (works.folder / "grows.py").write_text(LATER)
    with works.worker("--type", "t", app="grows:queue") as worker:
        works.add(None, type="late")
        (id,) = works.add("work")
        await_true(lambda: bool(works.ledger("end", id=id)))
        await_true(lambda: [one.types for one in works.queue.workers()] == [("t",)])
        assert works.queue.counts("late")["ready"] == 1
        assert worker.stop() == 0


def test_a_loop_of_some_types_says_so(tmp_path: object) -> None:
    queue = KQueue(f"sqlite:///{tmp_path}/jobs.db")
    with queue:
        seen: list[tuple[str, ...]] = []

        @queue.handler("a", delete_on_success=True)
        def handle(job: JobInHand) -> None:
            await_true(lambda: bool(queue.workers()))
            seen.extend(worker.types for worker in queue.workers())
            queue.stop()

        queue.add_handler("b", print)
        queue.add_job("a")
        queue.run_jobs(wait=True, types=["a"])
    assert seen == [("a",)]
