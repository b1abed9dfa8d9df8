"""Huey: https://huey.readthedocs.io/. No results, no periodic tasks, and its default kind of
worker, a thread: one, as by default, or as many as are told.

On Redis, or on an SQLite file with ``fsync`` as the URL says: ``sqlite:FILE?fsync=1``. It has no bulk add.
A task is taken off the queue before it runs, so it is lost when its worker dies.
"""

from huey import RedisHuey, SqliteHuey

from bench.peers import work as bench


def _huey(url: str) -> RedisHuey | SqliteHuey:
    if url.startswith("redis:"):
        return RedisHuey("bench", results=False, url=url)
    path, _, fsync = url.removeprefix("sqlite:").partition("?fsync=")
    return SqliteHuey("bench", results=False, filename=path, fsync=fsync == "1")


HUEY = _huey(bench.url())
CLOCK = bench.ProcessClock()


@HUEY.task()
def task(payload: str) -> None:
    bench.run(CLOCK)


def add_in_bulk(jobs: int) -> None:
    add_one_by_one(jobs)


def add_one_by_one(jobs: int) -> None:
    for _ in range(jobs):
        task(bench.PAYLOAD)


def work() -> None:
    HUEY.create_consumer(workers=bench.hands(1), worker_type="thread", periodic=False).run()


def left() -> int:
    return int(HUEY.pending_count())
