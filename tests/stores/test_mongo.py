"""What is MongoDB's alone: its commands and indexes, lost replies, URLs, forks. The rest is in the contract."""

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from kqueue.contracts.budget import MAX_PAYLOAD_BYTES as WINDOW_BYTES
from kqueue.contracts.budget import Budget
from kqueue.contracts.repair import Head, Recovered
from kqueue.contracts.runs import Claim, LeaseKey, Selection
from kqueue.contracts.settlements import Delete, Die, Retry, Settled, Settlement, Unget
from kqueue.contracts.stored_times import TOLERANCE_S
from kqueue.model.errors import AddFailed, StoreError, StoreUnavailable
from kqueue.model.job import Row, State
from kqueue.stores.mongo.schema import INLINE_BYTES, JOBS, LEFT_OUT, MAX_PAYLOAD_BYTES
from kqueue.stores.mongo.server.link import read_url
from kqueue.stores.mongo.store import MongoStore
from kqueue.system.clock import ManualClock
from tests.beanstalkd import free_port
from tests.mongod import Mongod
from tests.stores.mongo_helpers import (
    NO_MAJORITY,
    NOW,
    TTR,
    USING_INDEX,
    Commands,
    LossyProxy,
    explain,
    failing,
    ids_of,
    new_rows,
    window,
)
from tests.tubes import await_true


def claim(store: MongoStore, rows: list[Row], owner: str = "me", now: float = NOW) -> Claim:
    return store.claim(Selection(("t",), ids_of(rows)), window(), owner, now, False)


# -- commands --------------------------------------------------------------------------------------------


def test_a_window_costs_a_constant_number_of_commands(watched: MongoStore, commands: Commands):
    rows = new_rows(500)
    watched.add(rows)
    assert commands.names() == ["insert"]
    half = claim(watched, rows[:250])
    assert commands.names() == ["find", "update"]
    other_half = watched.claim(Selection(("t",)), window(250), "me too", NOW, False)
    assert commands.names() == ["find", "update"]
    assert ids_of(half.rows + other_half.rows) == ids_of(rows)
    watched.renew([LeaseKey(row.id, row.fence, row.ttr) for row in half.rows], NOW)
    assert commands.names() == ["update"]
    deletes = [Delete(row.id, row.fence) for row in half.rows]
    assert watched.settle(deletes, NOW) == Settled()
    assert commands.names() == ["delete"]
    mixed = [
        Delete(row.id, 1) if at % 2 else Retry(row.id, 1, NOW + at, f"{at}", None)
        for at, row in enumerate(other_half.rows)
    ]
    assert watched.settle(mixed, NOW) == Settled()
    assert sorted(commands.names()) == ["delete", "update"]


def test_rows_that_were_claimed_before_are_one_command_still(watched: MongoStore, commands: Commands):
    rows = new_rows(6)
    watched.add(rows)
    for times in range(3):
        claimed = claim(watched, rows[times:]).rows
        watched.settle([Unget(row.id, row.fence, NOW, None, None, False) for row in claimed], NOW)
    commands.sent.clear()
    claimed = claim(watched, rows).rows
    assert commands.names() == ["find", "update"]
    assert [row.fence for row in claimed] == [2, 3, 4, 4, 4, 4]
    assert watched.settle([Delete(row.id, row.fence) for row in claimed], NOW) == Settled()
    assert commands.names() == ["delete"]


def test_long_payloads_are_read_only_as_far_as_the_window_goes(watched: MongoStore, commands: Commands):
    rows = [row._replace(payload=bytes([at]) * 2**20) for at, row in enumerate(new_rows(24))]
    watched.add(rows)
    commands.sent.clear()
    for selection in (Selection(("t",), ids_of(rows[:12])), Selection(("t",))):
        claimed = watched.claim(selection, window(), "me", NOW, False)
        read_ahead = commands.sent[1]["filter"]["_id"]["$in"]
        assert commands.names() == ["find", "find", "update"]
        assert len(claimed.rows) == WINDOW_BYTES // 2**20
        assert len(read_ahead) == len(claimed.rows) + 1
        assert claimed.cut
        assert all(row.payload == rows[ids_of(rows).index(row.id)].payload for row in claimed.rows)


@pytest.mark.parametrize("length", [0, INLINE_BYTES, INLINE_BYTES + 1, 3 * 2**20, 15 * 2**20])
def test_payloads_of_every_length_come_back(store: MongoStore, length: int):
    rows = new_rows(1, payload=bytes(range(256)) * (length // 256) + b"x" * (length % 256), encoding="bytes")
    store.add(rows)
    assert claim(store, rows).rows[0].payload == rows[0].payload
    assert store.get(ids_of(rows))[0].payload == rows[0].payload


def test_a_long_pointer_of_ids_that_are_gone_costs_few_reads(watched: MongoStore, commands: Commands):
    gone, rows = new_rows(2000), new_rows(1)
    watched.add(rows)
    commands.sent.clear()
    claimed = watched.claim(Selection(("t",), ids_of(gone + rows)), window(1), "me", NOW, True)
    assert ids_of(claimed.rows) == ids_of(rows)
    assert claimed.rows[0].alone
    assert len(commands.names()) <= 7


# -- documents -------------------------------------------------------------------------------------------


def test_a_row_of_which_every_field_says_something_comes_back(store: MongoStore):
    plain = new_rows(1)[0]
    said = {"delay": 1.5, "fence": 2, "tries": 3, "failures": 4, "crashes": 5, "suspicion": 6, "alone": True}
    said |= {"lease_owner": "me", "lease_until": NOW + 7, "reason": "why", "created_at": NOW - 8, "put_at": NOW + 9}
    said |= {"gate": "other", "keep_until": NOW + 14, "history": '[["you",15.0,null]]', "limit_key": "k"}
    said |= {
        "scheduled_for": NOW + 16,
        "asked_at": NOW - 17,
        "own_options": "{}",
        "result": b"j1",
        "progress": "[1,2,null,3,4]",
    }
    said |= {
        "unique_key": "u",
        "run_at": NOW + 10,
        "ttr": 11.0,
        "priority": 12,
        "encoding": "bytes",
        "payload": b"13",
    }
    full = plain._replace(type="other", state=State.RUNNING, **said)
    assert not [name for name in Row._fields if getattr(full, name) == getattr(plain, name) and name != "id"]
    store.add([full])
    assert store.get(ids_of([full])) == [full]


def test_the_own_options_of_a_job_that_version_5_has_added_are_there(
    store: MongoStore, mongod: Mongod, mongo_database: str
):
    """It called them retries."""
    rows = new_rows(1, own_options='{"max_tries":7}')
    store.add(rows)
    with mongod.client() as client:
        client[mongo_database][JOBS].update_many({}, {"$rename": {"own_options": "retries"}})
    assert store.get(ids_of(rows)) == rows
    assert claim(store, rows).rows[0].own_options == '{"max_tries":7}'


def test_a_document_lacks_what_is_nothing_in_nearly_all_rows_and_begins_with_what_indexes_hold(
    store: MongoStore, mongod: Mongod, mongo_database: str
):
    rows = new_rows(1)
    store.add(rows)
    with mongod.client() as client:
        (document,) = client[mongo_database][JOBS].find()
    assert not document.keys() & LEFT_OUT.keys()
    assert [*document][:7] == ["_id", "state", "type", "priority", "place", "put_at", "run_at"]
    assert store.get(ids_of(rows)) == rows


@pytest.mark.parametrize("stored", [{}, {"$set": {"crashes": 0, "suspicion": 0, "failures": 0}}])
def test_no_crashes_are_none_whether_a_document_says_so_or_not(
    store: MongoStore, mongod: Mongod, mongo_database: str, stored: dict[str, Any]
):
    rows = new_rows(1)
    store.add(rows)
    if stored:
        with mongod.client() as client:
            assert client[mongo_database][JOBS].update_one({}, stored).modified_count
    assert store.claim(Selection(("t",)), window(), "me", NOW, True).rows[0].alone
    (found,) = store.find_abandoned(NOW + TTR, 10)
    assert found.crashes == 0
    assert store.recover(NOW + TTR, 3, 10) == Recovered(1)
    assert store.get(ids_of(rows))[0].crashes == 1


# -- indexes ---------------------------------------------------------------------------------------------

BACKLOG = 3000


class Backlog(NamedTuple):
    """Thousands of rows in each state, of which any call wants a few."""

    store: MongoStore
    database: str
    commands: Commands


@pytest.fixture(scope="module")
def filled(mongod: Mongod) -> Iterator[Backlog]:
    """One for all tests: they take a few rows out of it."""
    waiting = [
        row._replace(type=f"t{at % 3}", priority=10 * (1 + at % 5), put_at=NOW + at)
        for at, row in enumerate(new_rows(BACKLOG))
    ]
    delayed = [
        row._replace(type="t1", run_at=NOW + at) for at, row in enumerate(new_rows(BACKLOG, state=State.DELAYED))
    ]
    held = [
        row._replace(type="t1", lease_until=NOW + at, alone=bool(at % 2))
        for at, row in enumerate(new_rows(BACKLOG, state=State.RUNNING, fence=1, tries=1))
    ]
    unput = new_rows(20, type="unput", put_at=None)
    dead = [row._replace(type=f"t{at % 2}") for at, row in enumerate(new_rows(BACKLOG, state=State.DEAD))]
    name, commands = f"test_backlog_{secrets.token_hex(6)}", Commands()
    with mongod.client(event_listeners=[commands]) as client:
        store = MongoStore(mongod.url(name), clock=ManualClock(NOW), client=client)
        for rows in (waiting, delayed, held, unput, dead):
            store.add(rows)
        yield Backlog(store, name, commands)
        client.drop_database(name)


@pytest.fixture
def backlog(filled: Backlog) -> Backlog:
    filled.commands.sent.clear()
    return filled


CALLS: dict[str, Callable[[MongoStore], object]] = {
    "claim by priority": lambda store: (
        store.claim(Selection(("t0", "t2")), window(10, ("t0", "t2")), "me", NOW, False).rows
    ),
    "has_ready": lambda store: store.has_ready(["none", "t1"]),
    "promote": lambda store: store.promote(NOW + 5, 10),
    "next_run_at": lambda store: store.next_run_at(),
    "recover": lambda store: store.recover(NOW + 5, 3, 10).ready,
    "find_unput": lambda store: store.find_unput(NOW, 10),
    "ready_types": lambda store: store.ready_types("", 10),
    "find_lost, empty tube": lambda store: store.find_lost({"t1": None}, NOW + 500, 5, 10),
    "find_lost, many types": lambda store: store.find_lost(
        {"t0": None, "t1": Head(30, NOW + 60), "t2": Head(10, NOW), **dict.fromkeys(map(str, range(97)))},
        NOW + 9000,
        5,
        2000,
    ),
    "find_lost, head behind": lambda store: store.find_lost({"t1": Head(30, NOW + 60)}, NOW + 9000, 5, 2000),
    "find_lost, head in front": lambda store: store.find_lost({"t1": Head(10, NOW)}, NOW + 9000, 5, 10) == [],
    "purge": lambda store: store.purge("t1", 10),
    "find, dead": lambda store: store.find(None, State.DEAD, None, 10),
    "find, dead of a type": lambda store: store.find("t1", State.DEAD, "0", 10),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_reads_what_it_wants_by_an_index_whatever_the_backlog(backlog: Backlog, mongod: Mongod, call: str):
    result = CALLS[call](backlog.store)
    assert result, "it must find something"
    wanted = len(result) if isinstance(result, list) else 10
    sent = list(backlog.commands.sent)
    assert sent
    for command in sent:
        stages, keys, documents = explain(mongod, backlog.database, command)
        assert stages <= USING_INDEX, command
        assert keys <= 3 * wanted + 30, (command, keys)
        assert documents <= 2 * wanted + 20, (command, documents)


def test_many_types_cost_few_commands(watched: MongoStore, commands: Commands):
    types = [f"t{number:03}" for number in range(250)]
    watched.add([row._replace(type=types[at % 250], put_at=NOW) for at, row in enumerate(new_rows(500))])
    commands.sent.clear()
    assert watched.ready_types("", 100) == types[:100]
    assert len(commands.sent) <= 4
    commands.sent.clear()
    assert len(watched.find_lost(dict.fromkeys(types[:100]), NOW + 9, 5, 1000)) == 200
    assert len(commands.sent) == 1


def test_find_walks_only_the_rows_of_a_state(backlog: Backlog, mongod: Mongod):
    found = backlog.store.find("unput", State.READY, None, 100)
    (command,) = backlog.commands.sent
    _, keys, documents = explain(mongod, backlog.database, command)
    assert len(found) == documents == 20
    assert keys <= 30


def test_counts_walk_an_index_and_not_the_rows(backlog: Backlog, mongod: Mongod):
    backlog.store.counts()
    backlog.store.counts("t")
    for command in list(backlog.commands.sent):
        stages, _, documents = explain(mongod, backlog.database, command)
        assert stages <= USING_INDEX, command
        assert documents == 0


def test_claims_and_settles_by_id_use_the_ids(backlog: Backlog, mongod: Mongod):
    rows = new_rows(50)
    store, _, commands = backlog
    store.add(rows)
    commands.sent.clear()
    claim(store, rows)
    store.renew([LeaseKey(row.id, 1, TTR) for row in rows], NOW)
    store.settle([Retry(row.id, 1, NOW, "", None) for row in rows[:5]], NOW)
    store.mark([due._replace(put_at=None) for due in store.find_unput(NOW, 10)], NOW)
    store.settle([Delete(row.id, 1) for row in rows[5:]], NOW)
    for command in list(commands.sent):
        stages, keys, _ = explain(mongod, backlog.database, command)
        assert stages <= USING_INDEX, command
        assert keys <= 2 * len(rows) + 20, command


def test_a_claim_of_more_types_than_the_server_merges_is_in_order_and_sorts_nothing(
    watched: MongoStore, mongod: Mongod, mongo_database: str, commands: Commands
):
    types = [f"t{number:03}" for number in range(250)]
    rows = [row._replace(type=types[at % 250], priority=at % 7) for at, row in enumerate(new_rows(1000))]
    watched.add(rows)
    commands.sent.clear()
    claimed = watched.claim(Selection(tuple(types)), window(300, types), "me", NOW, False)
    assert ids_of(claimed.rows) == ids_of(sorted(rows, key=lambda row: row.priority)[:300])
    for command in [command for command in commands.sent if "find" in command]:
        assert explain(mongod, mongo_database, command)[0] <= USING_INDEX


# -- others at work ---------------------------------------------------------------------------------------


@pytest.fixture
def overtaken(watched: MongoStore, store: MongoStore, commands: Commands) -> Callable[[str, str], int]:
    """Calls ``method`` with a limit of 2; another takes the same two rows before its write, the ``command``."""
    calls: dict[str, Callable[[MongoStore], int]] = {
        "purge": lambda store: store.purge("t", 2),
        "promote": lambda store: store.promote(NOW, 2),
        "recover": lambda store: store.recover(NOW + TTR, 3, 2).ready,
    }

    def call(method: str, command: str) -> int:
        commands.before[command] = lambda: calls[method](store)
        return calls[method](watched)

    return call


@pytest.mark.parametrize(
    ("method", "command", "fields"),
    [
        ("purge", "delete", {}),
        ("promote", "update", {"state": State.DELAYED}),
        ("recover", "update", {"state": State.RUNNING, "lease_until": NOW, "lease_owner": "gone"}),
    ],
)
def test_nothing_is_returned_only_when_nothing_is_left(
    overtaken: Callable[[str, str], int], store: MongoStore, method: str, command: str, fields: dict[str, Any]
):
    store.add(new_rows(4, **fields))
    assert overtaken(method, command) == 2
    store.add(new_rows(2, **fields))
    assert overtaken(method, command) == 0


def test_a_claim_takes_nothing_that_its_late_holder_renewed_since_it_looked(store: MongoStore):
    rows = new_rows(2)
    store.add(rows)
    claim(store, rows[:1])
    store.recover(NOW + TTR, 3, 10)
    ours = claim_while(store, lambda: store.renew([LeaseKey(rows[0].id, 1, TTR)], NOW + TTR))
    assert ids_of(ours.rows) == ids_of(rows[1:])
    assert [(row.state, row.fence) for row in store.get(ids_of(rows[:1]))] == [(State.RUNNING, 1)]


@pytest.mark.parametrize("what", ["database", "jobs"])
def test_what_is_dropped_while_in_use_is_made_again(
    store: MongoStore, mongod: Mongod, mongo_database: str, what: str
):
    store.add(new_rows(3))
    assert store.has_ready(["t"])
    with mongod.client() as client:
        jobs = client[mongo_database][JOBS]
        indexes = jobs.index_information()
        if what == "database":
            client.drop_database(mongo_database)
        else:
            jobs.drop()
        rows = new_rows(2)
        store.add(rows)
        assert ids_of(store.claim(Selection(("t",)), window(), "me", NOW, False).rows) == ids_of(rows)
        assert store.recover(NOW + TTR, 3, 10) == Recovered(2)
        assert jobs.index_information() == indexes


# -- faults ----------------------------------------------------------------------------------------------


def test_an_add_whose_reply_is_lost_is_done_once(behind_proxy: MongoStore, proxy: LossyProxy):
    rows = new_rows(5)
    proxy.lose("insert")
    behind_proxy.add(rows)
    assert proxy.all_lost
    assert ids_of(behind_proxy.get(ids_of(rows))) == ids_of(rows)


def test_an_add_whose_replies_are_all_lost_tells_what_is_there(behind_proxy: MongoStore, proxy: LossyProxy):
    rows = new_rows(5)
    proxy.lose("insert", 2)
    with pytest.raises(AddFailed, match="5 were taken") as failed:
        behind_proxy.add(rows)
    assert proxy.all_lost
    assert failed.value.taken == ids_of(rows)


def test_an_add_that_nothing_can_be_learned_about_is_unknown(behind_proxy: MongoStore, proxy: LossyProxy):
    rows = new_rows(5)
    proxy.lose("insert", 2)
    proxy.lose("find", 2)
    with pytest.raises(AddFailed) as failed:
        behind_proxy.add(rows)
    assert proxy.all_lost
    assert failed.value.unknown == ids_of(rows)
    assert failed.value.taken == failed.value.not_taken == ()


def test_a_claim_whose_reply_is_lost_is_ours(behind_proxy: MongoStore, proxy: LossyProxy):
    rows = new_rows(5)
    behind_proxy.add(rows)
    proxy.lose("update")
    claimed = claim(behind_proxy, rows).rows
    assert proxy.all_lost
    assert behind_proxy.get(ids_of(rows)) == claimed
    assert [row.fence for row in claimed] == [1] * 5


def claim_while(store: MongoStore, happens: Callable[[], object], alone: bool = False) -> Claim:
    """A claim of all that is ready; ``happens`` when it has read its candidates and not yet taken them."""

    class Overtaken(Budget):
        def fit(self, candidates: Any) -> tuple[list[Row], bool]:
            chosen = super().fit(candidates)
            happens()
            return chosen

    return store.claim(Selection(("t",)), Overtaken(jobs=10, job_s={"t": 0.0}), "slower", NOW + TTR, alone)


def test_a_claim_of_which_another_took_a_part_gives_the_rest(store: MongoStore):
    rows = new_rows(5)
    store.add(rows)
    ours = claim_while(store, lambda: claim(store, rows[1:3], "faster"))
    assert ids_of(ours.rows) == ids_of([rows[0], *rows[3:]])
    assert {row.lease_owner for row in store.get(ids_of(rows[1:3]))} == {"faster"}
    assert {row.fence for row in store.get(ids_of(rows))} == {1}


def test_a_claim_takes_nothing_that_was_claimed_and_given_back_since_it_looked(store: MongoStore):
    rows = new_rows(2)
    store.add(rows)

    def come_and_go() -> None:
        claim(store, rows[:1], "faster")
        assert store.settle([Unget(rows[0].id, 1, NOW, None, NOW, False)], NOW) == Settled()

    ours = claim_while(store, come_and_go)
    assert ids_of(ours.rows) == ids_of(rows[1:])
    assert store.get(ids_of(ours.rows)) == ours.rows


@pytest.mark.parametrize(
    "late",
    [
        lambda id: Retry(id, 1, NOW, "late", NOW),
        lambda id: Unget(id, 1, NOW, None, NOW, True),
        lambda id: Retry(id, 1, NOW + 3600, "late", NOW),
        lambda id: Die(id, 1, "late"),
        lambda id: Delete(id, 1),
    ],
)
def test_a_claim_takes_nothing_that_its_late_holder_settled_since_it_looked(
    store: MongoStore, late: Callable[[str], Settlement]
):
    rows = new_rows(2)
    store.add(rows)
    claim(store, rows[:1])
    store.recover(NOW + TTR, 3, 10)
    ours = claim_while(store, lambda: store.settle([late(rows[0].id)], NOW + TTR))
    assert ids_of(ours.rows) == ids_of(rows[1:])
    assert {row.fence for row in store.get(ids_of(rows[:1]))} <= {1}


@pytest.mark.parametrize("kind", ["delete", "update"])
def test_a_settle_whose_reply_is_lost_counts_once(behind_proxy: MongoStore, proxy: LossyProxy, kind: str):
    rows = new_rows(6)
    behind_proxy.add(rows)
    claim(behind_proxy, rows)
    proxy.lose(kind)
    verdicts = [
        *(Delete(row.id, 1) for row in rows[:3]),
        Retry(rows[3].id, 1, NOW, "why", None),
        Unget(rows[4].id, 1, NOW, None, None, True),
        Die(rows[5].id, 1, "why"),
    ]
    unsure = ids_of(rows[:3]) if kind == "delete" else ()
    assert behind_proxy.settle(verdicts, NOW) == Settled(unsure=frozenset(unsure))
    assert proxy.all_lost
    left = behind_proxy.get(ids_of(rows))
    assert [(row.tries, row.failures) for row in left] == [(1, 1), (0, 0), (1, 1)]


def test_a_settle_after_a_lost_reply_still_tells_lost_leases(behind_proxy: MongoStore, proxy: LossyProxy):
    rows = new_rows(3)
    behind_proxy.add(rows)
    claim(behind_proxy, rows)
    behind_proxy.recover(NOW + TTR, 3, 10)
    claim(behind_proxy, rows[:1], "other", NOW + TTR)
    proxy.lose("delete")
    settled = behind_proxy.settle([Delete(row.id, 1) for row in rows], NOW + TTR)
    assert proxy.all_lost
    assert settled == Settled(frozenset({rows[0].id}), unsure=frozenset(ids_of(rows[1:])))
    assert ids_of(behind_proxy.get(ids_of(rows))) == ids_of(rows[:1])


def test_a_renewal_and_a_mark_whose_replies_are_lost_are_done(behind_proxy: MongoStore, proxy: LossyProxy):
    held, unput = new_rows(3), new_rows(3, put_at=None)
    behind_proxy.add(held + unput)
    claim(behind_proxy, held)
    proxy.lose("update")
    assert behind_proxy.renew([LeaseKey(row.id, 1, TTR) for row in held], NOW + 5) == frozenset()
    assert {row.lease_until for row in behind_proxy.get(ids_of(held))} == {NOW + 5 + TTR}
    dues = behind_proxy.find_unput(NOW, 10)
    proxy.lose("update")
    assert behind_proxy.mark(dues, NOW) == dues
    assert len(dues) == 3
    assert proxy.all_lost


def test_a_settle_after_one_that_failed_is_done_once_and_says_so(behind_proxy: MongoStore, proxy: LossyProxy):
    rows = new_rows(6)
    behind_proxy.add(rows)
    claim(behind_proxy, rows)
    verdicts = [
        *(Delete(row.id, 1) for row in rows[:3]),
        Retry(rows[3].id, 1, NOW, "why", None),
        Unget(rows[4].id, 1, NOW, None, None, True),
        Die(rows[5].id, 1, "why"),
    ]
    proxy.lose("delete", 2)
    proxy.lose("update", 2)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="may have been done all the same") as raised:
            behind_proxy.settle(verdicts, NOW)
        assert raised.value.may_be_done
    assert proxy.all_lost
    assert behind_proxy.settle(verdicts, NOW) == Settled(frozenset(ids_of(rows)))
    left = behind_proxy.get(ids_of(rows))
    assert [(row.tries, row.failures) for row in left] == [(1, 1), (0, 0), (1, 1)]


def test_a_run_that_was_given_back_cannot_be_renewed_or_settled(store: MongoStore):
    rows = new_rows(1)
    store.add(rows)
    claim(store, rows)
    store.settle([Unget(rows[0].id, 1, NOW, None, NOW, False)], NOW)
    given_back = store.get(ids_of(rows))
    assert store.renew([LeaseKey(rows[0].id, 1, TTR)], NOW) == {rows[0].id}
    for late in (Retry(rows[0].id, 1, NOW, "late", NOW), Delete(rows[0].id, 1)):
        assert store.settle([late], NOW).lost == {rows[0].id}
    assert store.get(ids_of(rows)) == given_back


def test_what_no_majority_has_acknowledged_is_unknown(store: MongoStore, mongod: Mongod):
    rows = new_rows(2)
    with failing(mongod, "insert", writeConcernError=NO_MAJORITY), pytest.raises(AddFailed) as failed:
        store.add(rows)
    assert failed.value.unknown == ids_of(rows)
    assert "waiting for replication timed out" in str(failed.value)
    assert isinstance(failed.value.__cause__, StoreUnavailable)


def test_an_add_that_ran_out_of_time_is_unknown(store: MongoStore, mongod: Mongod):
    rows = new_rows(2)
    with failing(mongod, "insert", errorCode=50), pytest.raises(AddFailed) as failed:
        store.add(rows)
    assert failed.value.unknown == ids_of(rows)


def check_a_failed_claim_can_be_given_back(store: MongoStore, rows: list[Row], owner: str) -> None:
    held = store.claimed_by(owner)
    assert sorted(ids_of(held)) == sorted(ids_of(rows))
    assert not any(row.alone for row in held), "a death that may follow is not to be blamed on it"
    assert store.settle([Unget(row.id, row.fence, NOW, None, NOW, False) for row in held], NOW) == Settled()
    after = store.get(ids_of(rows))
    assert [(row.state, row.tries, row.crashes) for row in after] == [(State.READY, 0, 0)] * len(rows)
    assert store.claimed_by(owner) == []


@pytest.mark.parametrize("count", [1, 5])
def test_a_claim_that_no_majority_has_acknowledged_can_be_given_back(store: MongoStore, mongod: Mongod, count: int):
    rows = new_rows(count)
    store.add(rows)
    with failing(mongod, "update", writeConcernError=NO_MAJORITY), pytest.raises(StoreUnavailable):
        store.claim(Selection(("t",), ids_of(rows)), window(), "me", NOW, True)
    check_a_failed_claim_can_be_given_back(store, rows, "me")


@pytest.mark.parametrize("lost", [["update", "update"], ["update", "find", "find"]])
def test_a_claim_about_which_nothing_can_be_learned_can_be_given_back(
    behind_proxy: MongoStore, proxy: LossyProxy, lost: list[str]
):
    rows = new_rows(1)
    behind_proxy.add(rows)
    with pytest.raises(StoreUnavailable):
        claim_while(behind_proxy, lambda: [proxy.lose(command) for command in lost], alone=True)
    assert proxy.all_lost
    check_a_failed_claim_can_be_given_back(behind_proxy, rows, "slower")


def test_a_failed_claim_changes_nothing_for_the_one_that_was_faster(
    behind_proxy: MongoStore, proxy: LossyProxy, store: MongoStore
):
    rows = new_rows(1)
    store.add(rows)
    faster: list[Row] = []

    def overtake() -> None:
        faster.extend(store.claim(Selection(("t",)), window(), "faster", NOW, True).rows)
        proxy.lose("find", 2)

    with pytest.raises(StoreUnavailable):
        claim_while(behind_proxy, overtake, alone=True)
    assert proxy.all_lost
    assert behind_proxy.claimed_by("slower") == []
    assert store.claimed_by("faster") == faster
    assert faster[0].alone


def test_what_runs_is_read_though_no_majority_has_it_yet(watched: MongoStore, commands: Commands):
    watched.claimed_by("me")
    assert [command["readConcern"] for command in commands.sent] == [{"level": "local"}]


def test_an_add_that_is_refused_or_not_sent_says_that_nothing_was_taken(store: MongoStore, mongod: Mongod):
    rows = new_rows(2)
    with failing(mongod, "insert", errorCode=13), pytest.raises(AddFailed, match="127.0.0.1") as refused:
        store.add(rows)
    assert refused.value.not_taken == ids_of(rows)
    cause = refused.value.__cause__
    assert isinstance(cause, StoreError)
    assert not isinstance(cause, StoreUnavailable)
    assert isinstance(cause.__cause__, PyMongoError)
    away = MongoStore(f"mongodb://127.0.0.1:{free_port()}/app?serverSelectionTimeoutMS=50", clock=ManualClock())
    with closing(away), pytest.raises(AddFailed) as not_sent:
        away.add(rows)
    assert not_sent.value.not_taken == ids_of(rows)
    assert isinstance(not_sent.value.__cause__, StoreUnavailable)
    store.add(rows)


def test_a_server_that_goes_away_before_an_add_has_taken_nothing(start_mongod: Callable[[], Mongod]):
    mongod = start_mongod()
    with closing(MongoStore(mongod.url("app", "&serverSelectionTimeoutMS=500"), clock=ManualClock())) as store:
        await_true(lambda: _is_added(store))
        mongod.stop()
        for _ in range(2):  # the first may meet the broken connection, which leaves its rows unknown
            rows = new_rows(2)
            with pytest.raises(AddFailed) as failed:
                store.add(rows)
    assert failed.value.not_taken == ids_of(rows)
    assert isinstance(failed.value.__cause__, StoreUnavailable)


def _is_added(store: MongoStore) -> bool:
    try:
        store.add(new_rows(1))
    except AddFailed:
        return False
    return True


def test_an_id_that_is_there_already_is_named_and_the_others_are_taken(store: MongoStore):
    rows = new_rows(4)
    store.add(rows[1:2])
    with pytest.raises(AddFailed) as failed:
        store.add(rows)
    assert failed.value.not_taken == ids_of(rows[1:2])
    assert failed.value.taken == ids_of([rows[0], *rows[2:]])


def test_a_payload_over_mongodbs_limit_is_refused_before_any_write(store: MongoStore):
    rows = new_rows(2)
    rows[1] = rows[1]._replace(payload=bytes(MAX_PAYLOAD_BYTES + 1))
    with pytest.raises(AddFailed, match=str(MAX_PAYLOAD_BYTES)) as failed:
        store.add(rows)
    assert failed.value.not_taken == ids_of(rows)
    assert store.get(ids_of(rows)) == []
    store.add([rows[1]._replace(payload=bytes(MAX_PAYLOAD_BYTES))])


def test_more_rows_than_a_command_holds_are_all_added(watched: MongoStore, commands: Commands):
    rows = new_rows(5, payload=bytes(10 * 2**20))
    watched.add(rows)
    assert commands.names() == ["insert", "insert"]
    assert ids_of(watched.get(ids_of(rows))) == ids_of(rows)


def test_a_server_that_is_not_there_is_named_without_the_password():
    port = free_port()
    store = MongoStore(f"mongodb://me:s3cret@127.0.0.1:{port}/app?serverSelectionTimeoutMS=50")
    for call in (store.open, store.now, lambda: store.add(new_rows(1)), lambda: store.get(["x"])):
        with pytest.raises((StoreUnavailable, AddFailed), match=f"mongodb://127.0.0.1:{port}/app") as raised:
            call()
        assert "s3cret" not in str(raised.value)
    store.close()


def test_an_error_is_a_short_line(store: MongoStore, mongod: Mongod, behind_proxy: MongoStore, proxy: LossyProxy):
    away = MongoStore(f"mongodb://127.0.0.1:{free_port()}/app?serverSelectionTimeoutMS=50")
    with closing(away), pytest.raises(StoreUnavailable, match=r"\(.*refused\)") as not_there:
        away.open()
    proxy.lose("find", 2)
    with pytest.raises(StoreUnavailable, match="connection closed") as cut:
        behind_proxy.get(["x"])
    with failing(mongod, "find", errorCode=13), pytest.raises(StoreError, match="failCommand") as refused:
        store.get(["x"])
    with failing(mongod, "update", errorCode=13), pytest.raises(StoreError, match="failCommand") as unwritten:
        store.renew([LeaseKey("x", 1, TTR)], NOW)
    slow = failing(mongod, "update", writeConcernError=NO_MAJORITY)
    with slow, pytest.raises(StoreUnavailable, match="waiting for replication") as unconfirmed:
        store.renew([LeaseKey("x", 1, TTR)], NOW)
    noises = ("\n", "Topology", "Timeout", "timeouts", "full error", "{")
    for raised in (not_there, cut, refused, unwritten, unconfirmed):
        text = str(raised.value)
        assert len(text) < 250, text
        assert not any(noise in text for noise in noises), text


def test_acknowledged_rows_survive_a_kill_and_the_store_goes_on(start_mongod: Callable[[], Mongod]):
    mongod = start_mongod()
    with closing(MongoStore(mongod.url("app", "&serverSelectionTimeoutMS=60000"))) as store:
        rows = new_rows(100)
        store.add(rows)
        assert len(claim(store, rows[:50]).rows) == 50
        mongod.restart()
        assert store.counts() == {"delayed": 0, "ready": 50, "held": 0, "running": 50, "dead": 0, "done": 0}
        assert store.settle([Delete(row.id, 1) for row in rows[:50]], NOW) == Settled()
    mongod.stop()


# -- processes and threads -------------------------------------------------------------------------------


def test_a_child_after_fork_uses_its_parents_store(store: MongoStore):
    mine, childs = new_rows(1), new_rows(1)
    store.add(mine)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            store.add(childs)
            assert len(claim(store, mine).rows) == 1
            store.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert store.get(ids_of(mine))[0].state == State.RUNNING
    assert ids_of(store.get(ids_of(childs))) == ids_of(childs)


def test_of_many_that_claim_at_once_each_row_goes_to_one(store: MongoStore):
    rows = new_rows(300)
    store.add(rows)
    got: list[Row] = []

    def work(name: int) -> None:
        for turn in range(10):
            got.extend(claim(store, rows[turn * 30 : turn * 30 + 30], f"{name} {turn}").rows)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids_of(got)) == sorted(ids_of(rows))
    assert {row.fence for row in store.get(ids_of(rows))} == {1}


def test_of_many_that_store_a_setting_at_once_the_first_wins(store: MongoStore):
    stored: list[str] = []
    start = threading.Barrier(8)

    def work(name: int) -> None:
        start.wait()
        stored.append(store.setting("prefix", f"from {name}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stored) == 8
    assert {*stored} == {store.setting("prefix", "too late")}


# -- opening ---------------------------------------------------------------------------------------------


def test_a_newer_schema_is_refused_and_nothing_is_changed(mongod: Mongod, new_mongo_database: str):
    with mongod.client() as client:
        client[new_mongo_database].kqueue_meta.insert_one({"_id": "schema", "version": 99})
        with closing(MongoStore(mongod.url(new_mongo_database))) as store:
            with pytest.raises(StoreError, match="version 99.*upgrade"):
                store.open()
            with pytest.raises(StoreError, match="version 99"):
                store.add(new_rows(1))
        assert client[new_mongo_database].list_collection_names() == ["kqueue_meta"]


def test_opening_twice_and_after_closing_works(mongod: Mongod, new_mongo_database: str):
    store = MongoStore(mongod.url(new_mongo_database))
    store.open()
    store.open()
    rows = new_rows(1)
    store.add(rows)
    store.close()
    store.close()
    assert ids_of(store.get(ids_of(rows))) == ids_of(rows)
    store.close()


def test_its_clock_is_the_servers(mongod: Mongod, mongo_database: str):
    with closing(MongoStore(mongod.url(mongo_database))) as store, mongod.client(tz_aware=True) as client:
        before = client.admin.command("hello")["localTime"].timestamp()
        now = store.now()
        after = client.admin.command("hello")["localTime"].timestamp()
    assert before - 0.1 <= now <= after + 0.1


@pytest.mark.parametrize(("back", "order"), [(TOLERANCE_S / 3, "added"), (3600.0, "by the clock")])
def test_the_order_added_survives_a_clock_that_is_set_back_a_little(
    mongod: Mongod, mongo_database: str, back: float, order: str
):
    """After one that was far ahead, what is added would stand behind all that others add."""
    clock = ManualClock(NOW)
    with closing(MongoStore(mongod.url(mongo_database), clock=clock)) as store:
        rows = new_rows(30)
        for at in (20, 10, 0):
            store.add(rows[at : at + 10])
            clock.jump(-back)
        claimed = store.claim(Selection(("t",)), window(), "me", NOW, False)
    added = rows[20:] + rows[10:20] + rows[:10]
    assert ids_of(claimed.rows) == ids_of(added if order == "added" else rows)


def test_a_reason_with_a_lone_surrogate_is_kept_readable(store: MongoStore):
    rows = new_rows(1)
    store.add(rows)
    claim(store, rows)
    assert store.settle([Die(rows[0].id, 1, "no file b\udce4r")], NOW) == Settled()
    assert store.get(ids_of(rows))[0].reason == "no file b\\udce4r"


def test_writes_wait_for_a_majority_and_the_journal_unless_the_url_says_less():
    assert read_url("mongodb://h/app").options.items() >= {
        ("w", "majority"),
        ("journal", True),
        ("readConcernLevel", "majority"),
        ("retryWrites", True),
    }
    less = read_url("mongodb://h/app?w=1&JOURNAL=false&serverSelectionTimeoutMS=7").options
    assert not less.keys() & {"w", "journal", "readConcernLevel", "serverSelectionTimeoutMS"}


def test_a_client_is_made_as_the_url_says(mongod: Mongod, mongo_database: str):
    plain, less = read_url(mongod.url(mongo_database)), read_url(mongod.url(mongo_database, "&w=1&journal=false"))
    with MongoClient(plain.url, **plain.options) as client:
        assert client.write_concern.document == {"w": "majority", "j": True, "wtimeout": 20_000}
    with MongoClient(less.url, **less.options) as client:
        assert client.write_concern.document == {"w": 1, "j": False, "wtimeout": 20_000}


def test_it_reads_from_the_primary_whatever_the_url_prefers(mongod: Mongod, mongo_database: str):
    url = mongod.url(mongo_database, "&readPreference=secondary")
    with closing(MongoStore(url)) as store:
        rows = new_rows(1)
        store.add(rows)
        assert ids_of(store.get(ids_of(rows))) == ids_of(rows)
        assert store.counts()["ready"] == len(claim(store, rows).rows) == 1


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mongodb://127.0.0.1/app", "mongodb://127.0.0.1:27017/app"),
        ("mongodb://me:p%40ss@a:1,b/app?replicaSet=rs0", "mongodb://a:1,b:27017/app"),
        ("mongodb+srv://me:p%40ss@cluster.example.org/app", "mongodb+srv://cluster.example.org/app"),
    ],
)
def test_the_address_shows_no_password(url: str, address: str):
    assert MongoStore(url).address == address


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://127.0.0.1:27017",
        "mongodb://127.0.0.1:27017/",
        "mongodb://127.0.0.1:27017/app.jobs",
        "mongodb://me:s3cret@127.0.0.1:x/app",
        "mongodb://me:s3cret@@127.0.0.1/app",
        "mongodb:///app",
        "mongodb://h/app?w=0",
        "mysql://me:s3cret@h/app",
        "",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str):
    with pytest.raises(ValueError, match="^store: ") as raised:
        MongoStore(url)
    assert "s3cret" not in str(raised.value)
