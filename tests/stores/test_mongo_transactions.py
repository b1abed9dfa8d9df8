"""What is MongoDB's alone where several documents change at once: unique keys, ticks, notes, migration."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.read_concern import ReadConcern

from kqueue.contracts.intake import Tick
from kqueue.contracts.runs import Selection
from kqueue.contracts.settlements import Delete, Finish
from kqueue.contracts.workers import WorkerRecord
from kqueue.model.errors import AddFailed, StoreUnavailable
from kqueue.model.job import Row, State
from kqueue.stores.mongo.schema import ENDED, JOBS, LEASES, META, NOTES, ORDER, UNPUT
from kqueue.stores.mongo.server.link import read_url
from kqueue.stores.mongo.server.patience import Patience
from kqueue.stores.mongo.store import MongoStore
from kqueue.system.clock import ManualClock
from tests.mongod import Mongod
from tests.stores.mongo_helpers import (
    NO_MAJORITY,
    NOW,
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

KEY = "user:42"
TRANSIENT = "TransientTransactionError"


@pytest.fixture
def watched(mongod: Mongod, mongo_database: str, commands: Commands) -> Iterator[MongoStore]:
    """A store whose commands are seen, with a client as it makes its own."""
    target = read_url(mongod.url(mongo_database))
    with MongoClient(target.url, **target.options, event_listeners=[commands]) as client:
        store = MongoStore(target.url, clock=ManualClock(NOW), client=client)
        store.open()
        commands.sent.clear()
        yield store


@pytest.fixture
def database(mongod: Mongod, mongo_database: str) -> Iterator[Any]:
    """The store's, behind its back."""
    with mongod.client() as client:
        yield client[mongo_database]


def keyed(**fields: Any) -> Row:
    return new_rows(1, **{"unique_key": KEY, **fields})[0]


def add_unique(store: MongoStore, row: Row, until: float = NOW) -> str:
    return store.add_unique([row], {row.id: until}, NOW)[0]


# -- commands --------------------------------------------------------------------------------------------


def test_a_unique_job_costs_four_commands_and_one_that_is_there_three(watched: MongoStore, commands: Commands):
    add_unique(watched, keyed())
    assert commands.names() == ["find", "insert", "update", "commitTransaction"]
    add_unique(watched, keyed())
    assert commands.names() == ["find", "find", "commitTransaction"]


def test_what_is_changed_last_in_a_transaction_is_what_others_want_too(watched: MongoStore, commands: Commands):
    """A process that dies before keeps nobody out."""
    watched.add_tick(Tick("hourly", None, 1.0), new_rows(2))
    add_unique(watched, keyed())
    wanted = [command for command in commands.sent if command.get("update")]
    assert [command["update"] for command in wanted] == [META, NOTES]
    for command in wanted:
        assert "commitTransaction" in commands.sent[commands.sent.index(command) + 1]


def test_a_transaction_is_as_durable_as_any_write(watched: MongoStore, commands: Commands):
    add_unique(watched, keyed())
    first, *_, last = commands.sent
    assert first["readConcern"]["level"] == "snapshot"
    assert last["writeConcern"] == {"w": "majority", "j": True, "wtimeout": 20_000}


def test_the_url_may_say_less_and_prefer_another_member(mongod: Mongod, mongo_database: str):
    url = mongod.url(mongo_database, "&readPreference=secondary&w=1&journal=false")
    with closing(MongoStore(url, clock=ManualClock(NOW))) as store:
        row = keyed()
        assert add_unique(store, row) == add_unique(store, keyed()) == row.id
        assert store.add_tick(Tick("hourly", None, 1.0), new_rows(1))


def test_deletes_and_purges_of_jobs_without_a_unique_key_cost_what_they_did(
    watched: MongoStore, commands: Commands
):
    plain, held = new_rows(4), keyed()
    watched.add(plain)
    add_unique(watched, held)
    commands.sent.clear()
    assert watched.delete(ids_of(plain[:2])) == 2
    assert commands.names() == ["delete"]
    assert watched.delete([held.id]) == 1
    assert commands.names() == ["delete"] * 3
    assert watched.purge("t", 2) == 2
    assert commands.names() == ["find", "delete"]
    assert watched.purge("t", 2) == 0
    assert commands.names() == ["find", "find"]


# -- lost replies ----------------------------------------------------------------------------------------


def test_a_unique_add_whose_commits_reply_is_lost_is_done_once(behind_proxy: MongoStore, proxy: LossyProxy):
    row = keyed()
    proxy.lose("commitTransaction")
    assert add_unique(behind_proxy, row) == row.id
    assert proxy.all_lost
    assert add_unique(behind_proxy, keyed()) == row.id
    assert behind_proxy.counts()["ready"] == 1


def test_a_unique_add_whose_replies_are_all_lost_is_looked_for(behind_proxy: MongoStore, proxy: LossyProxy):
    row = keyed()
    proxy.lose("commitTransaction", 2)
    assert add_unique(behind_proxy, row) == row.id
    assert proxy.all_lost
    assert behind_proxy.get([row.id]) == [row]


def test_a_unique_add_about_which_nothing_can_be_learned_is_unknown_and_taken(
    behind_proxy: MongoStore, proxy: LossyProxy
):
    row = keyed()
    proxy.lose("commitTransaction", 2)
    proxy.lose("find", 2, after="commitTransaction")
    with pytest.raises(AddFailed) as failed:
        add_unique(behind_proxy, row)
    assert failed.value.unknown == (row.id,)
    assert failed.value.taken == failed.value.not_taken == ()
    assert isinstance(failed.value.__cause__, StoreUnavailable)
    proxy.pass_all()
    assert add_unique(behind_proxy, keyed()) == row.id
    assert behind_proxy.counts()["ready"] == 1


@pytest.mark.parametrize("command", ["find", "insert", "update"])
def test_a_unique_add_that_loses_another_reply_is_done_once(
    behind_proxy: MongoStore, proxy: LossyProxy, command: str
):
    row = keyed()
    proxy.lose(command)
    assert add_unique(behind_proxy, row) == row.id
    assert proxy.all_lost
    assert behind_proxy.counts()["ready"] == 1
    assert add_unique(behind_proxy, keyed()) == row.id


@pytest.mark.parametrize("command", ["find", "insert", "update"])
def test_a_unique_add_whose_connection_breaks_again_and_again_has_taken_nothing(
    behind_proxy: MongoStore, proxy: LossyProxy, command: str
):
    row = keyed()
    proxy.lose(command, 9)
    with pytest.raises(AddFailed) as failed:
        add_unique(behind_proxy, row)
    assert failed.value.not_taken == (row.id,)
    proxy.pass_all()
    assert behind_proxy.get([row.id]) == []
    second = keyed()
    assert add_unique(behind_proxy, second) == second.id


def test_a_tick_whose_commits_reply_is_lost_is_made_once(behind_proxy: MongoStore, proxy: LossyProxy):
    rows = new_rows(2)
    proxy.lose("commitTransaction")
    assert behind_proxy.add_tick(Tick("hourly", None, 1.0), rows)
    assert proxy.all_lost
    assert not behind_proxy.add_tick(Tick("hourly", None, 1.0), new_rows(2))
    assert ids_of(behind_proxy.find("t", State.READY, None, 10)) == ids_of(rows)
    assert behind_proxy.last_ticks() == {"hourly": 1.0}


@pytest.mark.parametrize("count", [0, 2])
def test_a_tick_whose_replies_are_all_lost_is_looked_for(behind_proxy: MongoStore, proxy: LossyProxy, count: int):
    rows = new_rows(count)
    proxy.lose("commitTransaction", 2)
    assert behind_proxy.add_tick(Tick("hourly", None, 1.0), rows)
    assert proxy.all_lost
    assert behind_proxy.get(ids_of(rows)) == rows


def test_a_tick_about_which_nothing_can_be_learned_is_unknown_and_made(behind_proxy: MongoStore, proxy: LossyProxy):
    rows = new_rows(2)
    proxy.lose("commitTransaction", 2)
    proxy.lose("find", 2, after="commitTransaction")
    with pytest.raises(AddFailed) as failed:
        behind_proxy.add_tick(Tick("hourly", None, 1.0), rows)
    assert failed.value.unknown == ids_of(rows)
    proxy.pass_all()
    assert not behind_proxy.add_tick(Tick("hourly", None, 1.0), new_rows(2))
    assert behind_proxy.last_ticks() == {"hourly": 1.0}
    assert behind_proxy.get(ids_of(rows)) == rows


def test_another_that_made_the_same_tick_is_not_taken_for_us(
    watched: MongoStore, store: MongoStore, commands: Commands, mongod: Mongod, database: Any
):
    """Our transaction is undone, nobody tells us so, and another has made the same tick meanwhile."""
    ours, others = new_rows(1), new_rows(1)
    tick = Tick("hourly", None, 1.0)

    def overtake() -> None:
        database.client.admin.command("killAllSessions", [])
        assert store.add_tick(tick, others)
        database.client.admin.command(
            {"configureFailPoint": "failCommand", "mode": {"times": 2}},
            data={"failCommands": ["commitTransaction"], "closeConnection": True},
        )

    commands.before["commitTransaction"] = overtake
    with failing(mongod, "none"), pytest.raises(AddFailed) as failed:
        watched.add_tick(tick, ours)
    assert failed.value.unknown == ids_of(ours)
    assert store.find("t", State.READY, None, 10) == others


# -- failovers -------------------------------------------------------------------------------------------

NOT_PRIMARY = {"errorCode": 10107, "errorLabels": [TRANSIENT]}
GONE = {"errorCode": 251, "errorLabels": [TRANSIENT]}  # NoSuchTransaction: a new primary does not know it


@pytest.mark.parametrize(
    ("command", "how"),
    [
        ("insert", NOT_PRIMARY),
        ("update", NOT_PRIMARY),
        ("update", GONE),
        ("commitTransaction", GONE),
        ("commitTransaction", {"errorCode": 10107, "errorLabels": ["RetryableWriteError"]}),
        ("commitTransaction", {"closeConnection": True}),
    ],
)
@pytest.mark.parametrize("what", ["unique", "tick"])
def test_a_transaction_that_a_failover_undid_is_done_again_once(
    store: MongoStore, mongod: Mongod, what: str, command: str, how: dict[str, Any]
):
    row = keyed()
    with failing(mongod, command, **how):
        if what == "unique":
            assert add_unique(store, row) == row.id
        else:
            assert store.add_tick(Tick("hourly", None, 1.0), [row])
    assert store.find("t", State.READY, None, 10) == [row]


def test_what_no_majority_has_acknowledged_is_unknown(watched: MongoStore, commands: Commands, mongod: Mongod):
    row = keyed()
    with failing(mongod, "commitTransaction", writeConcernError=NO_MAJORITY):
        commands.before["commitTransaction"] = lambda: commands.before.update(find=lambda: unplug(mongod))
        with pytest.raises(AddFailed, match="waiting for replication") as failed:
            add_unique(watched, row)
    assert failed.value.unknown == (row.id,)
    assert isinstance(failed.value.__cause__, StoreUnavailable)
    assert add_unique(watched, keyed()) == row.id


def unplug(mongod: Mongod) -> None:
    """The majority's view is behind when it is looked at."""
    with mongod.client() as client:
        data = {"failCommands": ["find"], "errorCode": 13}
        client.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data})


def test_a_refused_add_has_taken_nothing(store: MongoStore, mongod: Mongod):
    row = keyed()
    with failing(mongod, "insert", errorCode=13), pytest.raises(AddFailed, match="refuses") as failed:
        add_unique(store, row)
    assert failed.value.not_taken == (row.id,)
    assert add_unique(store, row) == row.id


# -- others at work --------------------------------------------------------------------------------------


def test_of_two_that_add_the_same_key_at_once_the_faster_is_added(
    watched: MongoStore, store: MongoStore, commands: Commands
):
    faster, slower = keyed(), keyed()
    commands.before["insert"] = lambda: add_unique(store, faster)
    assert add_unique(watched, slower) == faster.id
    assert store.get([slower.id]) == []


def test_of_two_that_make_the_same_tick_at_once_the_faster_does(
    watched: MongoStore, store: MongoStore, commands: Commands
):
    faster, slower = new_rows(1), new_rows(1)
    tick = Tick("hourly", None, 1.0)
    commands.before["insert"] = lambda: store.add_tick(tick, faster)
    assert not watched.add_tick(tick, slower)
    assert store.find("t", State.READY, None, 10) == faster


def test_a_holder_that_ends_while_another_adds_frees_the_key_or_not_but_never_half(
    watched: MongoStore, store: MongoStore, commands: Commands
):
    holder = keyed()
    add_unique(store, holder)
    assert store.claim(Selection(("t",)), window(), "me", NOW, False).rows
    commands.before["commitTransaction"] = lambda: store.settle([Delete(holder.id, 1)], NOW)
    assert add_unique(watched, keyed()) == holder.id
    second = keyed()
    assert add_unique(watched, second) == second.id


def test_one_that_never_ends_its_transaction_is_not_waited_for_for_ever(
    store: MongoStore, database: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("kqueue.stores.mongo.server.transaction.Patience", lambda: Patience(0.05))
    row = keyed()
    with database.client.start_session() as session, session.start_transaction(ReadConcern("snapshot")):
        database[NOTES].insert_one({"_id": f"unique t {KEY}"}, session=session)
        database[META].insert_one({"_id": "schedule hourly"}, session=session)
        with pytest.raises(AddFailed, match="others change the same for too long") as failed:
            add_unique(store, row)
        assert failed.value.not_taken == (row.id,)
        assert isinstance(failed.value.__cause__, StoreUnavailable)
        with pytest.raises(AddFailed, match="others change the same for too long"):
            store.add_tick(Tick("hourly", None, 1.0), [row])
        other_key = keyed(unique_key="another")
        assert add_unique(store, other_key) == other_key.id
        session.abort_transaction()
    assert add_unique(store, row) == row.id


def test_what_a_killed_process_has_begun_is_undone_by_the_server(start_mongod: Callable[[], Mongod]):
    mongod = start_mongod()
    with mongod.client() as client:
        client.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=1)
    commands = Commands()
    killed, row = keyed(), keyed()
    commands.before["commitTransaction"] = lambda: os.kill(os.getpid(), signal.SIGKILL)
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            client = MongoClient(mongod.url("app"), event_listeners=[commands])
            MongoStore(mongod.url("app"), client=client).add_unique([killed], {killed.id: NOW + 60}, NOW)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    with closing(MongoStore(mongod.url("app"))) as store:

        def is_added() -> bool:
            try:
                return add_unique(store, row) == row.id
            except AddFailed as failed:
                assert failed.not_taken == (row.id,)
                return False

        await_true(is_added)
        assert ids_of(store.find("t", State.READY, None, 10)) == (row.id,)
    mongod.stop()


# -- what is looked at -----------------------------------------------------------------------------------

MANY = 3000


def test_no_call_walks_the_keys_of_all_waiting_jobs(
    watched: MongoStore, commands: Commands, mongod: Mongod, mongo_database: str, database: Any
):
    rows = new_rows(MANY, unique_key=KEY)
    watched.add(rows)
    notes = [
        {"_id": f"unique t {row.id}", "job": row.id, "until": NOW, "look_at": NOW + at}
        for at, row in enumerate(rows)
    ]
    database[NOTES].insert_many(notes)
    commands.sent.clear()
    row = keyed()
    assert add_unique(watched, row) == row.id
    assert add_unique(watched, keyed()) == row.id
    assert watched.delete([row.id]) == 1
    assert watched.expire(NOW + 9, 20) == 0
    in_transaction = ("autocommit", "startTransaction")
    sent = [{name: command[name] for name in command if name not in in_transaction} for command in commands.sent]
    read = [command for command in sent if {"find", "update", "delete"} & command.keys()]
    assert len(read) >= 9
    for command in read:
        stages, keys, documents = explain(mongod, mongo_database, command)
        assert stages <= USING_INDEX, command
        assert keys <= 50, command
        assert documents <= 30, command


def test_keys_of_jobs_that_wait_are_looked_at_again_after_a_while(store: MongoStore, database: Any):
    """So that a look at what is to be forgotten never comes to the same ones all the time."""
    waiting = [keyed(unique_key=f"waiting {number}") for number in range(5)]
    ended = [keyed(unique_key=f"ended {number}") for number in range(3)]
    for row in waiting + ended:
        add_unique(store, row)
    held = store.claim(Selection(("t",), ids_of(ended)), window(), "me", NOW, False).rows
    store.settle([Delete(row.id, 1) for row in held], NOW)
    for _ in range(4):
        store.expire(NOW + 1, 2)
    assert {note["job"] for note in database[NOTES].find()} == set(ids_of(waiting))
    assert database[NOTES].count_documents({"look_at": {"$lte": NOW + 1}}) == 0


def test_a_key_is_not_forgotten_while_its_job_has_a_row(store: MongoStore, database: Any):
    """Even one that is done: a dead one may be revived, and then has its key."""
    row = keyed()
    add_unique(store, row)
    store.claim(Selection(("t",)), window(), "me", NOW, False)
    store.settle([Finish(row.id, 1, NOW + 9999)], NOW)
    store.expire(NOW + 1, 10)
    assert database[NOTES].count_documents({}) == 1
    assert store.expire(NOW + 9999, 10) == 1
    store.expire(NOW + 9999, 10)
    assert database[NOTES].count_documents({}) == 0


def test_no_sweep_waits_for_who_was_killed_in_a_transaction(
    store: MongoStore, database: Any, monkeypatch: pytest.MonkeyPatch
):
    """And what it can forget it forgets later."""
    monkeypatch.setattr("kqueue.stores.mongo.keys_and_workers._FORGETTING_S", 0.1)
    row = keyed()
    add_unique(store, row)
    store.claim(Selection(("t",)), window(), "me", NOW, False)
    store.settle([Delete(row.id, 1)], NOW)
    with database.client.start_session() as session, session.start_transaction(ReadConcern("snapshot")):
        database[NOTES].update_one({"job": row.id}, {"$set": {"job": "of the killed"}}, session=session)
        assert store.expire(NOW + 1, 10) == 0
        session.abort_transaction()
    # Unless the server has come to it by now: it has had its time, and is told so when it looks.
    await_true(lambda: store.expire(NOW + 1, 10) >= 0 and not database[NOTES].count_documents({}))


def test_a_key_that_another_took_meanwhile_is_not_forgotten(
    watched: MongoStore, store: MongoStore, commands: Commands
):
    first, second = keyed(), keyed()
    add_unique(store, first)
    store.claim(Selection(("t",)), window(), "me", NOW, False)
    store.settle([Delete(first.id, 1)], NOW)
    commands.before["delete"] = lambda: add_unique(store, second)
    watched.expire(NOW + 1, 10)
    assert add_unique(store, keyed()) == second.id


def test_a_worker_that_is_heard_of_meanwhile_is_not_forgotten(
    watched: MongoStore, store: MongoStore, commands: Commands
):
    worker = WorkerRecord("w", "host", 1, ("t",), NOW, NOW)
    store.see_worker(worker)
    again = worker._replace(seen_at=NOW + 100_000)
    commands.before["delete"] = lambda: store.see_worker(again)
    watched.expire(NOW + 100_000, 10)
    assert store.workers() == [again]


# -- migration -------------------------------------------------------------------------------------------

OF_VERSION_1 = {"_id_", "order", "lost", "unput", "delayed", "leases", "dead"}
NEWEST = {"_id_", "lost", "delayed", "gates", "kept", "dated", "ends", ORDER, UNPUT, LEASES, ENDED}


@pytest.fixture
def old(store: MongoStore, database: Any, mongod: Mongod) -> list[Row]:
    """A database of version 1, with rows of which documents say no more than they did then."""
    rows = new_rows(3) + new_rows(2, state=State.DEAD, failures=3, reason="enough")
    store.add(rows)
    store.close()
    for name in set(database[JOBS].index_information()) - OF_VERSION_1:
        database[JOBS].drop_index(name)
    database[JOBS].create_index([("state", 1), ("type", 1), ("priority", 1), ("place", 1)], name="order")
    for name in ("unput", "dead"):  # by what does not matter here
        database[JOBS].create_index([(name, 1)], name=name)
    running = {"state": State.RUNNING.value}
    database[JOBS].create_index("lease_until", name="leases", partialFilterExpression=running)
    database[JOBS].update_many({}, {"$unset": {"dated_at": True}})
    assert set(database[JOBS].index_information()) == OF_VERSION_1
    database[NOTES].drop()
    database[META].update_one({"_id": "schema"}, {"$set": {"version": 1}})
    return rows


def test_a_database_of_version_1_is_migrated_by_many_at_once(
    old: list[Row], mongod: Mongod, mongo_database: str, database: Any
):
    stores = [MongoStore(mongod.url(mongo_database), clock=ManualClock(NOW)) for _ in range(4)]
    threads = [threading.Thread(target=store.open) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database[META].find_one({"_id": "schema"})["version"] == 6
    assert set(database[JOBS].index_information()) == NEWEST
    assert set(database[NOTES].index_information()) == {"_id_", "look_at", "job", "dated"}
    assert stores[0].get(ids_of(old)) == old
    assert ids_of(stores[1].claim(Selection(("t",)), window(), "me", NOW, False).rows) == ids_of(old[:3])
    assert stores[2].settle([Finish(row.id, 1, NOW) for row in old[:3]], NOW).lost == frozenset()
    assert stores[3].expire(NOW, 10) == 3
    for store in stores:
        store.close()


def test_a_new_database_is_made_with_the_newest_schema(mongod: Mongod, new_mongo_database: str):
    with closing(MongoStore(mongod.url(new_mongo_database))) as store, mongod.client() as client:
        store.open()
        database = client[new_mongo_database]
        assert database[META].find_one({"_id": "schema"})["version"] == 6
        assert set(database[JOBS].index_information()) == NEWEST


def test_rows_that_use_nothing_new_are_in_no_new_index(store: MongoStore, mongod: Mongod, mongo_database: str):
    delayed = new_rows(5, state=State.DELAYED, run_at=NOW + 9, put_at=NOW)
    store.add(new_rows(5) + delayed + new_rows(5, state=State.DEAD, put_at=NOW))
    store.claim(Selection(("t",)), window(2), "me", NOW, False)
    with mongod.client() as client:
        validated = client[mongo_database].command("validate", JOBS)
    keys = validated["keysPerIndex"]
    assert {name: number for name, number in keys.items() if name != "_id_"} == {
        ORDER: 13,
        "lost": 3,
        UNPUT: 0,
        "delayed": 5,
        LEASES: 2,
        ENDED: 10,
        "kept": 0,
        "ends": 0,
        "gates": 0,
        "dated": 10,
    }
