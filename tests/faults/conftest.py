"""Whole queues that a fault strikes, and the account that must come out even once it is over."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import greenstalk
import pytest

from kqueue import JobInHand, KQueue
from kqueue.assembly import assemble
from kqueue.contracts.broker import Broker
from kqueue.contracts.rules import GRACE_S
from kqueue.contracts.store import JobStore
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from tests.beanstalkd import Beanstalkd
from tests.faults.peers import Proxy
from tests.torture.ledger import Ledger, read

#: Seconds that a job may run, unless a test says otherwise.
TTR_S = 60.0
#: Rounds of lease, grace and one sweep in which everything due has run once the fault is over. The second is for
#: rows behind an entry whose own job was gone: the head rule sees them once that one is deleted.
ROUNDS = 2

MakeStore: TypeAlias = Callable[[], JobStore]


class Run(NamedTuple):
    """One call of a handler."""

    id: str
    fence: int
    payload: Any


class House:
    """Queues on one store and one broker, as the processes of a service have them.

    The store's clock is turned by hand, so that no test waits for a lease or the grace. What was acknowledged and
    what ran stands in a ledger outside the queue: also what a process did that a test forked and killed.
    """

    def __init__(
        self, folder: Path, clock: ManualClock, make_store: MakeStore, broker: str | Broker | None
    ) -> None:
        """``make_store``: a new handle on the one store, with ``clock``. ``broker``: its URL, or itself."""
        folder.mkdir(exist_ok=True)
        self.clock = clock
        self._folder = folder
        self._make_store = make_store
        self._broker = broker
        self._ledger = Ledger(folder / "house.ledger")
        self._queues: list[KQueue] = []
        self.queue = self.another("t")

    def another(self, *types: str, **options: Any) -> KQueue:
        """Another queue on the same store and broker, that runs jobs of ``types`` with :meth:`handle`."""
        options.setdefault("broker", self._broker)
        queue = KQueue.from_parts(assemble(self._make_store(), sweep_interval=15, **options))
        self._queues.append(queue)
        for type in types:
            queue.add_handler(type, self.handle)
        return queue

    def add(self, *payloads: Any, type: str = "t", queue: KQueue | None = None, **options: Any) -> list[str]:
        """Add jobs, one by one; their payloads are acknowledged from then on."""
        return [
            self.acknowledged((queue or self.queue).add_job(type, payload, **{"ttr": TTR_S, **options}), payload)
            for payload in payloads
        ]

    def acknowledged(self, id: str, payload: Any) -> str:
        """Write down that a queue has taken this job."""
        self._ledger.write("added", id=id, payload=payload)
        return id

    def handle(self, job: JobInHand) -> None:
        """Run a job: write it down, and delete it."""
        self.ran(job)
        job.delete()

    def ran(self, job: JobInHand) -> None:
        """Write down that a handler has begun."""
        self._ledger.write("run", id=job.id, fence=job.fence, payload=job.payload)

    def runs(self) -> list[Run]:
        """Every call of a handler so far."""
        return [Run(one["id"], one["fence"], one["payload"]) for one in self._records("run")]

    def recover(self) -> None:
        """The fault is over: what is due runs within lease, grace and a sweep."""
        for _ in range(ROUNDS):
            self.clock.advance(TTR_S + GRACE_S)
            self.queue.sweep()
            self.queue.run_jobs()

    def meets(self, no_entries: Callable[[], bool]) -> bool:
        """Whether nothing is in the tubes, once those pointers were met whose jobs ran past them. A loop asks a
        broker that was away again after a back-off.
        """
        return no_entries() or (self.queue.run_jobs().count == 0 and no_entries())

    def assert_even(self, more_runs: int = 0) -> None:
        """What was acknowledged ran, byte for byte; nothing else did; and no row is left, but for dead ones.

        Each ran once. ``more_runs``: how many runs more there may be, which is how many jobs were claimed and not
        settled when the fault struck. No fault of a broker allows one.
        """
        added = {one["id"]: one["payload"] for one in self._records("added")}
        runs = self.runs()
        counts = Counter(run.id for run in runs)
        assert added.keys() - counts.keys() == set(), "acknowledged, and never run"
        assert [run for run in runs if added.get(run.id, run) != run.payload] == [], "ran, and was not added so"
        assert [claim for claim, n in Counter(run[:2] for run in runs).items() if n > 1] == [], (
            "one fence, two runs"
        )
        assert len(runs) - len(counts) <= more_runs, [id for id, n in counts.items() if n > 1]
        rows = self.queue.counts()
        assert {state: count for state, count in rows.items() if count and state != "dead"} == {}

    def close(self) -> None:
        """Close every queue."""
        for queue in self._queues:
            with suppress(Exception):
                queue.close()

    def _records(self, what: str) -> Iterator[dict[str, Any]]:
        return (record for record in read(self._folder) if record["what"] == what)


def entries(server: Beanstalkd, prefix: str) -> dict[str, int]:
    """Entries in all tubes of a queue by their state, as the server itself counts them."""
    total: Counter[str] = Counter(ready=0, delayed=0, reserved=0, buried=0)
    with server.client() as client:
        for tube in client.tubes():
            if tube.startswith(prefix):
                with suppress(greenstalk.NotFoundError):
                    figures: dict[str, Any] = {**client.stats_tube(tube)}
                    total.update({state: int(figures[f"current-jobs-{state}"]) for state in total})
    return dict(total)


EMPTY = {"ready": 0, "delayed": 0, "reserved": 0, "buried": 0}


@pytest.fixture(autouse=True)
def pointers_at_once(rings_at_once: None) -> None:
    """The tests look into the tubes. Of rings that come late tells ``tests/flows/test_past_the_tube.py``."""


@pytest.fixture
def make_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Makes houses: ``make_house(broker_url)`` on a SQLite file, or with ``make_store=`` on another store.

    ``name`` tells two houses of one test apart; ``clock`` is one that the test turns itself.
    """
    made: list[House] = []

    def make(
        broker: str | Broker | None = None,
        *,
        name: str = "jobs",
        clock: ManualClock | None = None,
        make_store: Callable[[ManualClock], JobStore] | None = None,
    ) -> House:
        hand = clock or ManualClock()
        path = tmp_path / f"{name}.db"
        store = make_store or (lambda clock: SqliteStore(str(path), clock=clock))
        made.append(House(tmp_path / name, hand, lambda: store(hand), broker))
        return made[-1]

    yield make
    for house in made:
        house.close()


@pytest.fixture
def house(make_house: Callable[..., House], beanstalkd: Beanstalkd) -> House:
    """On a SQLite file and a beanstalkd without a binlog."""
    return make_house(beanstalkd.url)


@pytest.fixture
def start_proxy() -> Iterator[Callable[..., Proxy]]:
    """Call it, with the arguments of :class:`tests.faults.peers.Proxy`, for one in front of a server."""
    running: list[Proxy] = []

    def start(*arguments: Any, **options: Any) -> Proxy:
        running.append(Proxy(*arguments, **options))
        return running[-1]

    yield start
    for proxy in running:
        proxy.stop()
