"""What an idle sweep and a job's way cost on a genuine MongoDB beside a hundred thousand rows."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from kqueue import KQueue
from kqueue.broker import Pointer
from kqueue.clock import ManualClock
from kqueue.job import Row, State
from kqueue.store import Delete, Held, Retry, Selection
from kqueue.stores.mongo import MongoStore
from kqueue.stores.mongo_schema import JOBS as COLLECTION
from kqueue.stores.mongo_schema import to_document
from kqueue.sweep import GRACE_S
from kqueue.window import Limits
from tests.beanstalkd import Beanstalkd
from tests.mongod import Mongod
from tests.recovery.backlog import AGE_S, DUE_PER_SECOND, FIRST_DUE_S, LEASE_S, NOW, PRIORITIES, TYPES
from tests.test_mongo import USING_INDEX, Commands, explain

FEW, MANY = 1_000, 100_000
#: Jobs that one call is to get.
JOBS = 10
WINDOW = Limits(jobs=JOBS, job_s=dict.fromkeys(TYPES, 0.0))


class Place(NamedTuple):
    """A store of so many rows, and what its client sends."""

    store: MongoStore
    commands: Commands
    database: str


def row(number: int) -> Row:
    """One of a hundred runs, ten ended; of the others half are delayed, and better than all that is ready."""
    place = number % 100
    plain = Row(
        f"{number:028d}", TYPES[number // 100 % len(TYPES)], b"1", "json", PRIORITIES[number // 7 % 5],
        State.READY, 0.0, NOW - AGE_S, 30.0, created_at=NOW - AGE_S, put_at=NOW - AGE_S,
    )  # fmt: skip
    if place < 50:
        due = NOW + FIRST_DUE_S + (number // 100 * 50 + place) / DUE_PER_SECOND
        return plain._replace(priority=0, state=State.DELAYED, run_at=due, put_at=None)
    if place < 89:
        return plain
    if place < 99:
        return plain._replace(state=State.DEAD, fence=1, put_at=None)
    return plain._replace(
        state=State.RUNNING, fence=1, lease_owner=f"holder {number}", lease_until=NOW + LEASE_S + number / 1e5
    )


@pytest.fixture(scope="module")
def places(mongod: Mongod) -> Iterator[dict[int, Place]]:
    """A database of few rows and one of many."""
    made: dict[int, Place] = {}
    for rows in (FEW, MANY):
        database, commands = f"recovery_{rows}", Commands()
        client = mongod.client(event_listeners=[commands])
        store = MongoStore(mongod.url(database), clock=ManualClock(NOW), client=client)
        store.open()
        documents = (to_document(row(number), number) for number in range(rows))
        client[database][COLLECTION].insert_many(documents, ordered=False)
        made[rows] = Place(store, commands, database)
    yield made
    for place in made.values():
        with mongod.client() as client:
            client.drop_database(place.database)


def cost(mongod: Mongod, place: Place, call: Callable[[], object]) -> tuple[int, int, int]:
    """(commands, index keys, documents) of a call that must give something true. All go by an index, unsorted.

    They are explained after the call: rows that it has changed are found no more, but those behind them are.
    """
    place.commands.sent.clear()
    assert call()
    sent = list(place.commands.sent)
    keys = documents = 0
    for command in [command for command in sent if COLLECTION in command.values()]:
        stages, more_keys, more_documents = explain(mongod, place.database, command)
        assert stages <= USING_INDEX, command
        keys, documents = keys + more_keys, documents + more_documents
    return len(sent), keys, documents


def test_a_sweep_with_nothing_to_do_sends_a_few_commands_that_read_next_to_nothing(
    places: dict[int, Place], mongod: Mongod, beanstalkd: Beanstalkd
) -> None:
    costs = {}
    for rows, place in places.items():
        queue = KQueue(place.store, beanstalkd.url, prefix=f"n{rows}.")
        queue.open()
        for type in TYPES:
            (best,) = place.store.find_lost(type, None, NOW, GRACE_S, 1)
            queue.broker.put([(Pointer(type, best.priority, NOW - AGE_S, (best.id,)), 0.0)])
        costs[rows] = cost(mongod, place, lambda: queue.sweep().put == 0)  # noqa: B023
        queue.broker.close()
    commands, keys, documents = costs[MANY]
    # Two for each type; and the time of the last sweep, what is due, abandoned, ready and unput; and what is to be
    # forgotten: done jobs, and notes.
    assert commands <= 2 * len(TYPES) + 7
    assert keys <= 10 * commands
    assert documents == 0
    assert costs[FEW] == (commands, pytest.approx(keys, abs=commands), documents)


def jobs_through(store: MongoStore) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each call of the contract that runs again and again, for so many jobs. Nothing is left for a sweep to do."""
    held: list[Row] = []

    def claim(selection: Selection) -> bool:
        held[:] = store.claim(selection, WINDOW, "worker", NOW, False).rows
        return len(held) == JOBS

    def delete() -> bool:
        return not store.settle([Delete(row.id, row.fence) for row in held], NOW).lost

    def delete_unput() -> None:
        assert store.delete([due.id for due in store.find_unput(NOW, JOBS)]) == JOBS

    yield "has_ready", lambda: store.has_ready(TYPES)
    yield "next_run_at", store.next_run_at
    lost = store.find_lost(TYPES[3], None, NOW, GRACE_S, JOBS)
    yield "find_lost", lambda: store.find_lost(TYPES[3], None, NOW, GRACE_S, JOBS) == lost
    yield "mark", lambda: len(store.mark(lost, NOW)) == JOBS
    yield "claim by ids", lambda: claim(Selection(tuple(TYPES), tuple(due.id for due in lost)))
    yield "renew", lambda: not store.renew([Held(row.id, row.fence, row.ttr) for row in held], NOW)
    yield (
        "settle retries",
        lambda: not store.settle([Retry(row.id, row.fence, NOW, "again", NOW) for row in held], NOW).lost,
    )
    yield "claim of one type", lambda: claim(Selection((TYPES[5],)))
    yield "settle deletes", delete
    yield "claim of all types", lambda: claim(Selection(tuple(TYPES)))
    delete()
    yield "find_unput", lambda: store.find_unput(NOW + FIRST_DUE_S + JOBS, JOBS)
    yield "promote", lambda: store.promote(NOW + FIRST_DUE_S + JOBS, JOBS) == JOBS
    delete_unput()
    yield "recover", lambda: store.recover(NOW + LEASE_S + JOBS, 3, JOBS).ready == JOBS
    delete_unput()


def test_a_call_reads_as_much_beside_a_hundred_thousand_rows_as_beside_a_thousand(
    places: dict[int, Place], mongod: Mongod
) -> None:
    costs: dict[str, list[tuple[int, int, int]]] = {}
    for place in places.values():
        for name, call in jobs_through(place.store):
            costs.setdefault(name, []).append(cost(mongod, place, call))
    for few, many in costs.values():
        assert many[0] == few[0] <= 2, costs
        assert many[1] <= few[1] + 3 * JOBS, costs
        assert many[2] <= few[2] + JOBS, costs
    assert max(keys for _, (_, keys, _) in costs.values()) <= 10 * JOBS, costs
