"""What is MongoDB's alone where types have limits: turns, what claims cost then, lost replies, killed clients."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from kqueue.contracts.admission import Limit
from kqueue.contracts.lookup import Backlog
from kqueue.contracts.runs import Claim, Selection
from kqueue.contracts.settlements import Delete, Unget
from kqueue.model.errors import StoreUnavailable
from kqueue.model.job import Row, State
from kqueue.stores.gates import FEW_HELD
from kqueue.stores.mongo.schema import JOBS
from kqueue.stores.mongo.server.patience import Patience
from kqueue.stores.mongo.store import MongoStore
from kqueue.stores.mongo.turns import MOST_STARTS, with_start
from kqueue.system.clock import ManualClock
from tests.mongod import Mongod
from tests.stores.mongo_helpers import (
    NO_MAJORITY,
    NOW,
    TTR,
    Commands,
    LossyProxy,
    failing,
    ids_of,
    new_rows,
    window,
)
from tests.tubes import await_true

ROOT = Path(__file__).parents[2]

ONE = Limit("t", running=1)
TWO = Limit("t", running=2)
ONE_A_KEY = Limit("t", running_per_key=1)


@pytest.fixture
def jobs(mongod: Mongod, mongo_database: str) -> Iterator[Any]:
    """The documents, behind the store's back."""
    with mongod.client() as client:
        yield client[mongo_database][JOBS]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kqueue.stores.mongo.turns.Patience", lambda _: Patience(0.05))


def claim(
    store: MongoStore,
    *rows: Row,
    limits: tuple[Limit, ...] = (ONE,),
    jobs: int = 1000,
    owner: str = "me",
    alone: bool = False,
) -> Claim:
    types = ("t", "u")
    return store.claim(Selection(types, ids_of(list(rows)) or None, limits), window(jobs, types), owner, NOW, alone)


def admit(store: MongoStore, limit: Limit = ONE) -> tuple[str, ...]:
    return tuple(due.id for due in store.admit(limit, None, NOW, NOW, 100).dues)


def add(store: MongoStore, count: int, **fields: Any) -> list[Row]:
    rows = new_rows(count, **fields)
    store.add(rows)
    return rows


def states(store: MongoStore, rows: list[Row]) -> list[str]:
    return [row.state for row in store.get(ids_of(rows))]


# -- commands --------------------------------------------------------------------------------------------


def test_a_limited_claim_costs_a_few_commands_whatever_the_window(watched: MongoStore, commands: Commands):
    for count in (1, 100):
        rows = add(watched, count)
        commands.sent.clear()
        claimed = claim(watched, *rows, limits=(Limit("t", running=1000, starts=1000, period=60.0),)).rows
        assert ids_of(claimed) == ids_of(rows)
        # Its turn, its candidates, what runs, who waits; and the claim.
        assert commands.names() == ["find", "find", "aggregate", "find", "update"]


def test_many_keys_cost_no_more_commands_than_a_few(watched: MongoStore, commands: Commands):
    costs = []
    for count in (2, 200):
        rows = [row._replace(limit_key=row.id) for row in new_rows(count)]
        watched.add(rows)
        commands.sent.clear()
        assert len(claim(watched, *rows, limits=(ONE_A_KEY,)).rows) == count
        costs.append(commands.names())
    assert costs[0] == costs[1] == ["find", "find", "aggregate", "distinct", "update"]


def test_a_claim_pays_only_for_limits_of_types_that_it_meets(watched: MongoStore, commands: Commands):
    rows = add(watched, 3, type="u")
    commands.sent.clear()
    assert ids_of(claim(watched, *rows).rows) == ids_of(rows)
    assert commands.names() == ["find", "find", "update"]
    rows = add(watched, 3, type="u")
    commands.sent.clear()
    selection = Selection(("u",), ids_of(rows), (ONE,))
    assert watched.claim(selection, window(9, ("u",)), "me", NOW, False).rows
    assert commands.names() == ["find", "update"]


def test_an_admission_costs_a_few_commands(watched: MongoStore, commands: Commands):
    assert admit(watched) == ()
    assert commands.names() == ["find", "distinct", "update"]
    rows = add(watched, 5)
    (held,) = claim(watched, *rows).rows
    watched.settle([Delete(held.id, 1)], NOW)
    commands.sent.clear()
    assert admit(watched, TWO) == ids_of(rows[1:3])
    assert commands.names() == ["find", "distinct", "aggregate", "aggregate", "find", "update"]


def test_a_backlog_is_held_page_by_page(watched: MongoStore, commands: Commands):
    rows = add(watched, 300)
    last = add(watched, 1, type="u", priority=99)
    commands.sent.clear()
    first = claim(watched, jobs=3)
    assert ids_of(first.rows) == (rows[0].id,)
    assert FEW_HELD <= first.held < 299  # it has something to run, so it goes no further
    second = claim(watched, jobs=3)
    assert ids_of(second.rows) == (last[0].id,)
    assert first.held + second.held == 299
    assert len(commands.sent) <= 2 * 12


# -- turns -----------------------------------------------------------------------------------------------


def test_a_turn_is_no_job(store: MongoStore, jobs: Any):
    rows = add(store, 2)
    claim(store, *rows)
    assert jobs.count_documents({}) == 3
    assert store.overview() == [Backlog("t", "held", 1, NOW), Backlog("t", "running", 1, NOW)]
    assert sum(store.counts().values()) == 2
    assert store.find_unput(NOW, 10) == store.find_due(NOW, 10) == []
    assert store.purge("t", 10) == 1
    assert {document["_id"] for document in jobs.find()} == {rows[0].id, "limit t"}


def test_who_has_looked_before_another_took_the_turn_looks_again(
    watched: MongoStore, store: MongoStore, commands: Commands
):
    rows = add(store, 4)
    commands.before["update"] = lambda: claim(store, rows[0], owner="faster")
    claimed = claim(watched, *rows[1:], limits=(TWO,))
    assert (ids_of(claimed.rows), claimed.held) == (ids_of(rows[1:2]), 2)
    assert states(store, rows) == ["running", "running", "held", "held"]


def test_who_is_about_to_hold_a_row_when_a_place_gets_free_looks_again(
    watched: MongoStore, store: MongoStore, commands: Commands
):
    """Or the row would wait for ever: the admission, which found nothing held, was before it."""
    first, second = add(store, 2)
    claim(store, first)

    def end() -> None:
        store.settle([Delete(first.id, 1)], NOW)
        assert admit(store) == ()

    commands.before["update"] = end
    assert ids_of(claim(watched, second).rows) == (second.id,)


def test_of_two_that_admit_at_once_the_slower_looks_again(
    watched: MongoStore, store: MongoStore, commands: Commands
):
    rows = add(store, 4)
    (held,) = claim(store, *rows).rows
    store.settle([Delete(held.id, 1)], NOW)
    commands.before["update"] = lambda: admit(store)
    assert admit(watched, TWO) == ids_of(rows[2:3])


def test_a_turn_that_cannot_be_taken_beside_that_of_another_type_is_given_back(
    watched: MongoStore, store: MongoStore, commands: Commands, jobs: Any, monkeypatch: pytest.MonkeyPatch
):
    """At once, and what it would have claimed has not counted as started."""
    monkeypatch.setattr("kqueue.stores.mongo.turns.UNFINISHED_S", 1e9)
    t, u, faster = add(store, 1), add(store, 1, type="u"), add(store, 1, type="u")
    both = (Limit("t", starts=9, period=9.0), Limit("u", starts=9, period=9.0))
    claim(store, *add(store, 1), limits=both)
    commands.before["update"] = lambda: claim(store, *faster, limits=both, owner="faster")
    claimed = claim(watched, *t, *u, limits=both)
    assert (ids_of(claimed.rows), claimed.held) == (ids_of(t + u), 0)
    turns = {document["_id"]: document for document in jobs.find({"turn": {"$exists": True}})}
    assert {turn["turn"] % 2 for turn in turns.values()} == {0}
    assert [rows for _, rows in turns["limit t"]["starts"]] == [1, 1]
    assert [rows for _, rows in turns["limit u"]["starts"]] == [1, 1]


def test_a_turn_that_no_one_ends_is_taken_over(store: MongoStore, jobs: Any, monkeypatch: pytest.MonkeyPatch):
    """The server died within the command of whoever had it."""
    monkeypatch.setattr("kqueue.stores.mongo.turns.UNFINISHED_S", 1.0)  # no pause of the machine is as long
    jobs.insert_one({"_id": "limit t", "turn": 7})
    first, second = add(store, 2)
    (held,) = claim(store, first).rows
    assert held.lease_until is not None
    assert held.lease_until > NOW + TTR, "its lease runs from when the turn came"
    assert store.get([first.id]) == [held]
    assert claim(store, second).held == 1
    assert jobs.find_one({"_id": "limit t"})["turn"] == 12


@pytest.mark.usefixtures("impatient")
def test_a_turn_that_others_have_is_not_waited_for_for_ever(store: MongoStore, jobs: Any):
    jobs.insert_one({"_id": "limit t", "turn": 7})
    t, u = add(store, 1), add(store, 1, type="u")
    with pytest.raises(StoreUnavailable, match=r"127.0.0.1.*limited types.*t\); try again"):
        claim(store, *t, *u)
    with pytest.raises(StoreUnavailable):
        admit(store)
    assert states(store, t + u) == ["ready", "ready"]
    assert ids_of(claim(store, *u).rows) == ids_of(u), "other types are not kept waiting"


@pytest.mark.parametrize("before", ["find", "aggregate", "update"])
def test_a_client_that_is_killed_keeps_nobody_waiting(
    store: MongoStore, mongod: Mongod, mongo_database: str, before: str
):
    rows = add(store, 2)
    commands = Commands()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            client = MongoClient(mongod.url(mongo_database), event_listeners=[commands])
            killed = MongoStore(mongod.url(mongo_database), clock=ManualClock(NOW), client=client)
            killed.open()
            commands.before[before] = lambda: os.kill(os.getpid(), signal.SIGKILL)
            claim(killed, rows[0])
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    (held,) = claim(store, rows[1]).rows
    assert held.lease_until == NOW + TTR, "it had not to wait"
    assert states(store, rows) == ["ready", "running"]


#: What another process runs: a claim of the store and the ids that it is given.
CLAIM = """
import sys
from kqueue.contracts.admission import Limit
from kqueue.contracts.runs import Selection
from kqueue.stores.mongo.store import MongoStore
from kqueue.system.clock import ManualClock
from tests.stores.mongo_helpers import NOW, window
url, *ids = sys.argv[1:]
store = MongoStore(url, clock=ManualClock(NOW))
store.claim(Selection(("t", "u"), tuple(ids), (Limit("t", running=1),)), window(1000, ("t", "u")), "me", NOW, False)
"""


def test_the_server_does_what_a_killed_client_has_sent_to_its_end(
    store: MongoStore, mongod: Mongod, mongo_database: str, jobs: Any
):
    rows = add(store, 3)
    told = [mongod.url(mongo_database), *ids_of(rows)]
    # So long that a busy machine sees it run; and of this store alone.
    slow = {"blockConnection": True, "blockTimeMS": 3000, "namespace": f"{mongo_database}.{JOBS}"}
    with (
        mongod.client() as client,
        failing(mongod, "update", **slow),
        subprocess.Popen([sys.executable, "-c", CLAIM, *told], cwd=ROOT) as process,
    ):

        def is_sent() -> bool:
            running = client.admin.aggregate([{"$currentOp": {}}, {"$match": {"command.update": JOBS}}])
            return any(True for _ in running)

        await_true(is_sent)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        await_true(lambda: states(store, rows) == ["running", "held", "held"])
        await_true(lambda: jobs.find_one({"_id": "limit t"})["turn"] == 2)


# -- others at work --------------------------------------------------------------------------------------


def test_rows_that_an_operator_deletes_meanwhile_are_neither_claimed_nor_held(
    watched: MongoStore, store: MongoStore, commands: Commands
):
    rows = add(store, 6)
    commands.before["update"] = lambda: store.delete([rows[0].id, rows[3].id])
    claimed = claim(watched, *rows, limits=(TWO,))
    assert ids_of(claimed.rows) == ids_of(rows[1:2])
    assert claimed.held == 3
    assert store.get(ids_of(claimed.rows)) == claimed.rows


def test_a_row_that_was_claimed_without_limits_meanwhile_is_not_claimed_again(
    watched: MongoStore, store: MongoStore, commands: Commands
):
    rows = add(store, 2)

    def come_and_go() -> None:
        (row,) = claim(store, rows[0], limits=(), owner="faster").rows
        store.settle([Unget(row.id, 1, NOW, None, NOW, False)], NOW)

    commands.before["update"] = come_and_go
    assert ids_of(claim(watched, *rows, limits=(TWO,)).rows) == ids_of(rows[1:])
    assert states(store, rows) == ["ready", "running"]


def test_held_rows_that_an_operator_deletes_meanwhile_are_not_admitted(
    watched: MongoStore, store: MongoStore, commands: Commands
):
    rows = add(store, 4)
    (held,) = claim(store, *rows).rows
    store.settle([Delete(held.id, 1)], NOW)
    commands.before["update"] = lambda: store.delete([rows[1].id])
    assert admit(watched, TWO) == ids_of(rows[2:3])


def test_a_delayed_row_that_was_put_off_meanwhile_is_not_held(
    watched: MongoStore, store: MongoStore, commands: Commands
):
    first = add(store, 1)
    due = add(store, 1, state=State.DELAYED)
    claim(store, *first)

    def put_off() -> None:
        (row,) = claim(store, *due, limits=(), owner="faster").rows
        store.settle([Unget(row.id, 1, NOW + 60, None, NOW, False)], NOW)

    commands.before["update"] = put_off
    assert claim(watched, *due).held == 0
    assert states(store, due) == ["delayed"]


# -- lost replies ----------------------------------------------------------------------------------------

STARTS = Limit("t", running=2, starts=9, period=60.0)


def test_a_limited_claim_whose_reply_is_lost_is_ours_and_counts_once(
    behind_proxy: MongoStore, proxy: LossyProxy, jobs: Any
):
    rows = add(behind_proxy, 5)
    proxy.lose("update")
    claimed = claim(behind_proxy, *rows, limits=(STARTS,))
    assert proxy.all_lost
    assert (ids_of(claimed.rows), claimed.held) == (ids_of(rows[:2]), 3)
    assert behind_proxy.get(ids_of(claimed.rows)) == claimed.rows
    assert [row.fence for row in claimed.rows] == [1, 1]
    assert jobs.find_one({"_id": "limit t"})["starts"] == [[NOW, 2]]


def test_a_claim_that_only_holds_and_whose_reply_is_lost_has_held(behind_proxy: MongoStore, proxy: LossyProxy):
    rows = add(behind_proxy, 3)
    claim(behind_proxy, rows[0])
    proxy.lose("update")
    claimed = claim(behind_proxy, *rows[1:])
    assert (claimed.rows, claimed.held) == ([], 2)
    assert proxy.all_lost
    assert states(behind_proxy, rows) == ["running", "held", "held"]


@pytest.mark.parametrize("count", [1, 3])
def test_a_limited_claim_about_which_nothing_can_be_learned_can_be_given_back(
    behind_proxy: MongoStore, proxy: LossyProxy, count: int
):
    rows = add(behind_proxy, count)
    proxy.lose("update", 2)
    with pytest.raises(StoreUnavailable):
        claim(behind_proxy, *rows, limits=(Limit("t", running=9),), alone=True)
    assert proxy.all_lost
    held = behind_proxy.claimed_by("me")
    assert sorted(ids_of(held)) == sorted(ids_of(rows))
    assert not any(row.alone for row in held), "a death that may follow is not to be blamed on it"
    assert {row.gate for row in held} == {"t"}
    behind_proxy.settle([Unget(row.id, row.fence, NOW, None, NOW, False) for row in held], NOW)
    assert len(claim(behind_proxy, *rows, limits=(Limit("t", running=9),)).rows) == count


def test_a_limited_claim_that_no_majority_has_acknowledged_can_be_given_back(store: MongoStore, mongod: Mongod):
    rows = add(store, 1)
    with failing(mongod, "update", writeConcernError=NO_MAJORITY), pytest.raises(StoreUnavailable):
        claim(store, *rows, alone=True)
    (held,) = store.claimed_by("me")
    assert not held.alone


def test_an_admission_whose_reply_is_lost_tells_whom_it_admitted(behind_proxy: MongoStore, proxy: LossyProxy):
    rows = add(behind_proxy, 4)
    (held,) = claim(behind_proxy, *rows).rows
    behind_proxy.settle([Delete(held.id, 1)], NOW)
    proxy.lose("update")
    assert admit(behind_proxy, TWO) == ids_of(rows[1:3])
    assert proxy.all_lost
    assert states(behind_proxy, rows[1:]) == ["ready", "ready", "held"]


# -- starts ----------------------------------------------------------------------------------------------


def test_starts_are_kept_for_their_period():
    limit = Limit("t", starts=9, period=10.0)
    starts = with_start([[NOW - 10, 1], [NOW - 9.9, 2], [NOW + 5, 4]], limit, NOW, 3)
    assert starts == [[NOW - 9.9, 2], [NOW, 3], [NOW + 5, 4]]


def test_of_many_starts_neighbours_are_counted_as_one_and_never_too_early():
    many = 4 * MOST_STARTS
    limit = Limit("t", starts=10**6, period=float(many))
    starts: list[list[float]] = []
    for number in range(2 * many):
        starts = with_start(starts, limit, NOW + number, 1)
        assert len(starts) <= MOST_STARTS
    last = NOW + 2 * many - 1
    assert starts[-1][0] == last
    for since in range(0, many, 100):
        counted = sum(rows for at, rows in starts if at > last - since)
        assert 0 <= counted - since <= 8, "two parts of five hundred, of the period"


def test_a_held_row_is_stored_at_its_gate_and_one_that_runs_at_its_last(store: MongoStore, jobs: Any):
    limit = Limit("t", running=1, running_per_key=1)
    keyed, held = add(store, 2, limit_key="k")
    claim(store, keyed, held, limits=(limit,))
    assert [jobs.find_one({"_id": row.id})["gate"] for row in (keyed, held)] == ["t k", "t"]
    assert [row.gate for row in store.get([keyed.id, held.id])] == ["t", "t"]
    assert [row.gate for row in store.claimed_by("me")] == ["t"]
