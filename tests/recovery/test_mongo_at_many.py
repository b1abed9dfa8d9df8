"""What an idle sweep and a job's way cost on a genuine MongoDB beside a hundred thousand rows."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from kqueue import KQueue
from kqueue.contracts.admission import Limit
from kqueue.contracts.broker import Pointer
from kqueue.contracts.budget import Budget
from kqueue.contracts.rules import GRACE_S
from kqueue.contracts.runs import LeaseKey, Selection
from kqueue.contracts.settlements import Delete, Retry
from kqueue.model.job import Row, State
from kqueue.stores.gates import gate_of
from kqueue.stores.mongo.lookup import STRETCHES
from kqueue.stores.mongo.schema import JOBS as COLLECTION
from kqueue.stores.mongo.schema import to_document
from kqueue.stores.mongo.store import MongoStore
from kqueue.system.clock import ManualClock
from tests.beanstalkd import Beanstalkd
from tests.mongod import Mongod
from tests.recovery.backlog import AGE_S, DUE_PER_SECOND, FIRST_DUE_S, LEASE_S, NOW, PRIORITIES, TYPES
from tests.stores.mongo_helpers import USING_INDEX, Commands, explain

FEW = 1_000
#: Jobs that one call is to get.
JOBS = 10
#: Limit keys of the rows that are held.
KEYS = 5
WINDOW = Budget(jobs=JOBS, job_s=dict.fromkeys(TYPES, 0.0))


class Place(NamedTuple):
    """A store of so many rows, and what its client sends."""

    store: MongoStore
    commands: Commands
    database: str


def row(number: int) -> Row:
    """One of a hundred runs, thirteen ended; of the others most are delayed, and better than all that is ready.
    What is held, at the gate of its type or of a key, is worse.
    """
    place = number % 100
    plain = Row(
        f"{number:028d}", TYPES[number // 100 % len(TYPES)], b"1", "json", PRIORITIES[number // 7 % 5],
        State.READY, 0.0, NOW - AGE_S, 30.0, created_at=NOW - AGE_S, put_at=NOW - AGE_S,
    )  # fmt: skip
    if place < 50:
        due = NOW + FIRST_DUE_S + (number // 100 * 50 + place) / DUE_PER_SECOND
        return plain._replace(priority=0, state=State.DELAYED, run_at=due, put_at=None)
    if place < 65:
        return plain
    if place < 87:
        key = f"k{place // 2 % KEYS}" if place % 2 else None
        gate = gate_of(plain.type, key)
        return plain._replace(priority=99, state=State.HELD, put_at=None, gate=gate, limit_key=key)
    if place < 89:
        until = NOW + FIRST_DUE_S + number / 100
        return plain._replace(state=State.DONE, fence=1, put_at=None, keep_until=until)
    if place < 99:
        return plain._replace(state=State.DEAD, fence=1, put_at=None)
    return plain._replace(
        state=State.RUNNING, fence=1, lease_owner=f"holder {number}", lease_until=NOW + LEASE_S + number / 1e5
    )


@pytest.fixture(scope="module", params=[10_000, pytest.param(100_000, marks=pytest.mark.proof)])
def places(mongod: Mongod, request: pytest.FixtureRequest) -> Iterator[dict[int, Place]]:
    """A database of few rows and one of many."""
    made: dict[int, Place] = {}
    with ExitStack() as clients:
        for rows in (FEW, request.param):
            database, commands = f"recovery_{rows}", Commands()
            client = clients.enter_context(mongod.client(event_listeners=[commands]))
            clients.callback(client.drop_database, database)
            store = MongoStore(mongod.url(database), clock=ManualClock(NOW), client=client)
            store.open()
            documents = (to_document(row(number), number) for number in range(rows))
            client[database][COLLECTION].insert_many(documents, ordered=False)
            made[rows] = Place(store, commands, database)
        yield made


def cost(mongod: Mongod, place: Place, call: Callable[[], object], name: str = "") -> tuple[int, int, int]:
    """(commands, index keys, documents) of a call that must give something true. All go by an index, unsorted.

    They are explained after the call: rows that it has changed are found no more, but those behind them are.
    """
    place.commands.sent.clear()
    assert call(), name
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
            (best,) = place.store.find_lost({type: None}, NOW, GRACE_S, 1)
            queue.broker.put([(Pointer(type, best.priority, NOW - AGE_S, (best.id,)), 0.0)])
        costs[rows] = cost(mongod, place, lambda: queue.sweep().put == 0)  # noqa: B023
        queue.broker.close()
    for commands, keys, documents in costs.values():
        # One or two for each type; and the time of the last sweep, what is due, abandoned, misdated, ready and
        # unput; and what is to be forgotten: done jobs, and notes. What is ready and unput, or misdated, is asked
        # for by itself: in the index of what else is so a plain job would have a key.
        assert commands <= 2 * len(TYPES) + 9, costs
        # One command asks for what lies ahead, of each type and priority.
        assert keys <= 10 * commands + 2 * len(TYPES) * len(PRIORITIES), costs
        assert documents == 0
    # The types that have ready rows are read by stretches of an index: beside many rows a stretch holds one type,
    # beside few some. So there may be a stretch more for each type, and never more than that.
    more = [many - few for many, few in zip(costs[max(costs)], costs[FEW], strict=True)]
    assert more[0] <= len(TYPES), costs
    assert more[1] <= STRETCHES[0] * len(TYPES), costs


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
    lost = store.find_lost({TYPES[3]: None}, NOW, GRACE_S, JOBS)
    yield "find_lost", lambda: store.find_lost({TYPES[3]: None}, NOW, GRACE_S, JOBS) == lost
    yield "mark", lambda: len(store.mark(lost, NOW)) == JOBS
    yield "claim by ids", lambda: claim(Selection(tuple(TYPES), tuple(due.id for due in lost)))
    yield "renew", lambda: not store.renew([LeaseKey(row.id, row.fence, row.ttr) for row in held], NOW)
    yield (
        "settle retries",
        lambda: not store.settle([Retry(row.id, row.fence, NOW, "again", NOW) for row in held], NOW).lost,
    )
    yield "claim of one type", lambda: claim(Selection((TYPES[5],)))
    yield "settle deletes", delete
    yield "claim of all types", lambda: claim(Selection(tuple(TYPES)))
    delete()
    yield "held_types", lambda: store.held_types(TYPES) == TYPES
    first, second, third, fourth = (TYPES[at] for at in (0, 1, 2, 6))
    wide = Limit(first, running=10**6, running_per_key=10**6, starts=10**6, period=60.0)
    yield "limited claim of one type", lambda: claim(Selection((first,), None, (wide,)))
    delete()
    ready = {type: store.find_lost({type: None}, NOW, GRACE_S, JOBS) for type in (second, fourth)}
    by_ids = {type: Selection((type,), tuple(due.id for due in dues)) for type, dues in ready.items()}
    yield "limited claim by ids", lambda: claim(by_ids[fourth]._replace(limits=(wide._replace(type=fourth),)))
    delete()
    shut = by_ids[second]._replace(limits=(Limit(second, running=0),))
    yield "limited claim that holds", lambda: store.claim(shut, WINDOW, "worker", NOW, False).held == JOBS
    yield "admit", lambda: len(store.admit(Limit(third, JOBS), [], NOW, NOW, JOBS).dues) == JOBS
    keys = [f"k{key}" for key in range(KEYS)]
    per_key = Limit(third, 0, running_per_key=2)
    yield "admit, of keys", lambda: len(store.admit(per_key, keys, NOW, NOW, JOBS).dues) == JOBS
    yield "admit, of all keys", lambda: store.admit(per_key, None, NOW, NOW, JOBS).dues == []
    yield "find, done", lambda: len(store.find(None, State.DONE, None, JOBS)) == JOBS
    last = store.find(TYPES[9], State.DEAD, None, 1)[0]._replace(priority=2**32 - 1)
    yield "ahead", lambda: store.ahead(last, JOBS) == JOBS
    yield "expire", lambda: store.expire(NOW + FIRST_DUE_S + FEW, JOBS) == JOBS
    yield "find_unput", lambda: store.find_unput(NOW + FIRST_DUE_S + JOBS, JOBS)
    yield "promote", lambda: store.promote(NOW + FIRST_DUE_S + JOBS, JOBS) == JOBS
    delete_unput()
    yield "recover", lambda: store.recover(NOW + LEASE_S + JOBS, 3, JOBS).ready == JOBS
    delete_unput()


#: Where limits are looked at it takes more than a read and a write. The gates of keys are read one after another,
#: as far as they have places. What is abandoned is looked for by TTR.
COMMANDS = {
    **dict.fromkeys(["limited claim of one type", "limited claim by ids", "limited claim that holds"], 5),
    **{"admit": 6, "admit, of keys": 6 + KEYS, "admit, of all keys": 6, "ahead": 3, "expire": 3, "recover": 3},
}


def test_a_call_reads_as_much_beside_a_hundred_thousand_rows_as_beside_a_thousand(
    places: dict[int, Place], mongod: Mongod
) -> None:
    costs: dict[str, list[tuple[int, int, int]]] = {}
    for place in places.values():
        for name, call in jobs_through(place.store):
            costs.setdefault(name, []).append(cost(mongod, place, call, name))
    for name, (few, many) in costs.items():
        assert many[0] == few[0] <= COMMANDS.get(name, 2), costs
        assert many[1] <= few[1] + 3 * JOBS, costs
        assert many[2] <= few[2] + 2 * JOBS, costs
    assert max(keys for _, (_, keys, _) in costs.values()) <= 10 * JOBS, costs
