"""Types of any printable characters, the same on every store and broker."""

from collections import Counter

from kqueue import JobInHand, KQueue
from tests.flows.conftest import MakeQueue

#: Each is the beginning of another, or what a name of a store, a tube or a query may be taken for.
TYPES = [
    "slideshow",
    "slideshow pdf",
    "slideshow pdf x",
    "slideshow+20pdf",
    "slideshow!",
    "test:inserts",
    "$set.a",
    "$type",
    "a.b",
    "-x",
    " ",
    "'; --",
    "%s {0}",
    "é☃",
    "☃" * 63,
    "x" * 189 + " ",
]


def finish(job: JobInHand) -> None:
    job.delete()


def all_added(queue: KQueue, **given: str) -> dict[str, str]:
    return {type: queue.add_job(type, type, **given) for type in TYPES}  # type: ignore[arg-type]


def test_each_runs_by_its_own_handler(make_queue: MakeQueue) -> None:
    queue = make_queue()
    ran: Counter[tuple[str, str]] = Counter()

    def record(job: JobInHand) -> None:
        ran[job.type, job.payload] += 1
        job.delete()

    for type in TYPES:
        queue.add_handler(type, record)
    all_added(queue)
    assert queue.run_jobs().deleted == len(TYPES)
    assert ran == Counter((type, type) for type in TYPES)
    report = queue.sweep()
    assert (report.put, report.foreign_pointers) == (0, 0)


def test_each_has_its_own_keys_pauses_and_counts(make_queue: MakeQueue) -> None:
    queue = make_queue()
    added = all_added(queue, unique="k x", limit_key="k x")
    assert all_added(queue, unique="k x") == added
    for type in TYPES:
        found = queue.find_job(type, unique="k x")
        assert found is not None
        assert found.id == added[type]
        assert queue.counts(type)["ready"] == 1
        assert [job.id for job in queue.jobs(type, state="ready")] == [added[type]]
    assert queue.pause("slideshow pdf")
    assert queue.paused().keys() == {"slideshow pdf"}
    queue.add_handler("slideshow pdf", finish)
    queue.add_handler("slideshow", finish)
    assert queue.run_jobs().deleted == 1
    assert queue.resume("slideshow pdf")
    for type in TYPES[2:]:
        assert queue.purge_jobs(type) == 1
        assert queue.find_job(type, unique="k x") is None
    assert queue.purge_jobs("slideshow") == 0
    found = queue.find_job("slideshow pdf", unique="k x")
    assert found is not None
    assert queue.counts() == {**dict.fromkeys(queue.counts(), 0), "ready": 1}


def test_each_has_its_own_limits(make_queue: MakeQueue) -> None:
    """Keys hold spaces too: "pdf x" of one type is no gate of another's."""
    queue = make_queue()
    seen: list[tuple[str, int]] = []

    def look(job: JobInHand) -> None:
        seen.append((job.type, queue.counts(job.type)["held"]))
        job.delete()

    types = ["slideshow", "slideshow pdf", "slideshow pdf x"]
    for type in types:
        queue.limit(type, running_per_key=1)
        queue.add_handler(type, look)
    for type in types:
        queue.add_jobs(type, range(3), limit_key="pdf x")
        queue.add_jobs(type, range(3), limit_key="x")
    assert queue.run_jobs().deleted == 18
    assert {type for type, _ in seen} == {*types}
    assert queue.counts() == dict.fromkeys(queue.counts(), 0)


def test_a_schedule_may_be_of_any(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.add_handler("job name", finish)
    queue.add_cron("* * * * *", "job name")
    queue.run_jobs()
    assert queue.store.last_ticks().keys() == {"job name"}
