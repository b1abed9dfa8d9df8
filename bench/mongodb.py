"""How many durable jobs a second with a MongoDB store, next to a bare pymongo loop?

    python -m bench.mongodb [--jobs N] [--rounds N] [--json FILE]

As in ``bench.throughput``, but the store is a MongoDB: a replica set of one, ``w: majority, j: true``. The bare
loop does what such a queue cannot do without, on the same server and over windows of the same size: ``insert_many``
in lists of 1,000, then ``find``, ``update_many`` and ``delete_many`` for each window. Last, the commands that the
server counted for 1,000 jobs.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from pymongo import WriteConcern
from pymongo.collection import Collection

from bench import bare, queues, show
from bench.figures import ROUNDS, Findings, Goal, interleaved, ratio, table
from kqueue import KQueue
from kqueue.contracts.budget import MAX_JOBS
from tests.mongod import Mongod, executable

QUESTION = "How many durable jobs a second with a MongoDB store, next to a bare pymongo loop?"

BARE = "bare pymongo"
WITH_BEANSTALKD = "KQueue, MongoDB + beanstalkd -b"
EMBEDDED = "KQueue, MongoDB alone"
DATABASE = "bench"
#: What the server counts beside these has nothing to do with jobs.
COMMANDS = ("insert", "find", "getMore", "aggregate", "update", "delete", "findAndModify")


class Bench:
    """One mongod; each method is one round of a contender, on a new database."""

    def __init__(self, server: Mongod, jobs: int) -> None:
        self._server = server
        self._jobs = jobs
        self.commands: dict[str, list[float]] = {}

    def bare_loop(self) -> float:
        """Jobs a second."""
        with self._server.client() as client:
            client.drop_database(DATABASE)
            jobs = client[DATABASE].get_collection("jobs", write_concern=WriteConcern(w="majority", j=True))
            jobs.create_index([("state", 1), ("type", 1), ("priority", 1), ("place", 1)])
            with self._counted(BARE):
                started = time.perf_counter()
                _insert(jobs, self._jobs)
                while _work_window(jobs):
                    pass
                return self._jobs / (time.perf_counter() - started)

    def kqueue(self, name: str, broker: str | None) -> float:
        """Jobs a second."""
        with self._server.client() as client:
            client.drop_database(DATABASE)
        with KQueue(self._server.url(DATABASE), broker) as queue, self._counted(name):
            started = time.perf_counter()
            queues.add_all(queue, self._jobs)
            queues.run_all(queue, self._jobs)
            return self._jobs / (time.perf_counter() - started)

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        """Note the commands that the server counts meanwhile, for 1,000 jobs."""
        before = self._counts()
        yield
        made = sum((self._counts() - before).values())
        self.commands.setdefault(name, []).append(made / self._jobs * 1000)

    def _counts(self) -> Counter[str]:
        with self._server.client() as client:
            metrics = client.admin.command("serverStatus")["metrics"]["commands"]
        return Counter({name: int(metrics[name]["total"]) for name in COMMANDS if name in metrics})


def _insert(jobs: Collection[dict[str, Any]], number: int) -> None:
    for at in range(0, number, queues.LIST):
        jobs.insert_many([_document(place) for place in range(at, min(at + queues.LIST, number))])


def _document(place: int) -> dict[str, Any]:
    now = time.time()
    return {
        "_id": f"{place:028d}",
        "type": queues.NOOP,
        "encoding": "bytes",
        "priority": 65536,
        "place": place,
        "state": "ready",
        "delay": 0.0,
        "run_at": now,
        "ttr": 60.0,
        "fence": 0,
        "tries": 0,
        "lease_until": None,
        "created_at": now,
        "put_at": now,
        "payload": bare.PAYLOAD,
    }


def _work_window(jobs: Collection[dict[str, Any]]) -> int:
    """Claim and delete one window; how many jobs it had."""
    ready = {"state": "ready", "type": queues.NOOP}
    found = list(jobs.find(ready).sort([("priority", 1), ("place", 1)]).limit(MAX_JOBS))
    ids = {"_id": {"$in": [job["_id"] for job in found]}}
    if found:
        claim = {"$set": {"state": "running", "lease_until": time.time() + 60}, "$inc": {"fence": 1}}
        assert jobs.update_many(ids | {"fence": 0}, claim).modified_count == len(found)
        assert jobs.delete_many(ids | {"fence": 1}).deleted_count == len(found)
    return len(found)


@contextmanager
def mongod() -> Iterator[Mongod]:
    """A server of one's own, whose data goes with it."""
    if executable() is None:
        raise queues.Missing(
            "mongod is not installed: set KQUEUE_MONGOD to its path; scripts/get-mongod fetches one"
        )
    server = Mongod()
    try:
        yield server
    finally:
        server.stop()


@click.command()
@click.option("--jobs", default=20_000, show_default=True, help="In each round.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(jobs: int, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    about = show.begin(QUESTION, {**queues.servers(), "mongod": [executable(), "--version"]})
    with mongod() as server, queues.beanstalkd() as beanstalkd:
        bench = Bench(server, jobs)
        rates = interleaved(
            {
                BARE: bench.bare_loop,
                WITH_BEANSTALKD: lambda: bench.kqueue(WITH_BEANSTALKD, beanstalkd.url),
                EMBEDDED: lambda: bench.kqueue(EMBEDDED, None),
            },
            rounds,
        )
    findings = Findings(
        QUESTION,
        [
            table("add, then run and delete; w: majority, j: true", "jobs/s", rates),
            table("commands to the server, add and run", "for 1,000 jobs", bench.commands),
        ],
        [
            Goal("with beanstalkd: to bare pymongo", ratio(rates[WITH_BEANSTALKD], rates[BARE]), ">=", 0.7),
            Goal("MongoDB alone: to bare pymongo", ratio(rates[EMBEDDED], rates[BARE]), ">=", 0.7),
        ],
        [f"Windows of the bare loop: {MAX_JOBS} jobs, the most that KQueue's hold."],
    )
    show.end(about, findings, json_file)


if __name__ == "__main__":
    main()
