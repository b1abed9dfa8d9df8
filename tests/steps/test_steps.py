"""Fail every step: each I/O call of every store and broker fails before its effect, fails after it, and is the last
that its process makes; then another process repairs, and the invariants of the design are checked.

With ``--proof`` every call is met; without it every operation runs, and three in a hundred of its faults, drawn by
a seed that a failure tells (``TEST_SEED`` draws them again). :mod:`tests.steps.survey` says how calls are found.
"""

import gc
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from kqueue.stores.sqlite.store import SqliteStore
from tests.beanstalkd import Beanstalkd
from tests.beanstalkd import executable as beanstalkd_path
from tests.conftest import missing
from tests.mongod import Mongod
from tests.steps import edges
from tests.steps.house import Place, shared_client
from tests.steps.operations import OPERATIONS, Operation
from tests.steps.sites import Site, sites, uncovered
from tests.steps.survey import Survey
from tests.steps.tap import ROOT, Call, Tap

#: Each store and each broker. The memory store does no I/O.
PLACES = ("sqlite", "sqlite+beanstalkd", "mongod+beanstalkd")
CASES = [(place, operation) for place in PLACES for operation in OPERATIONS if operation.only in place]
#: And where only these make other calls: a beanstalkd at a Unix socket, and a MongoDB that dispatches.
FEW = {"sqlite+unix": ("add",), "mongod": ("run", "run one type")}
CASES += [(place, operation) for place, names in FEW.items() for operation in OPERATIONS if operation.name in names]
#: The folders that have I/O, each in its own. The memory store has none.
FOLDERS = ((ROOT / "stores", ROOT), (ROOT / "kqueue" / "brokers", ROOT / "kqueue"))
READ_ONLY = (("_identity", "read"), ("connect", "handle.connection.execute"))
#: Calls that no operation reaches, by file, function and how they begin; and why.
UNREACHED: dict[tuple[str, str, str], str] = {
    ("stores/sqlite/file/handle.py", "whole", "connection.rollback"): "only a signal leaves a transaction open",
    **dict.fromkeys(
        [("stores/sqlite/file/read_only.py", name, start) for name, start in READ_ONLY],
        "a file that may only be read: tests/stores/test_sqlite_read_only.py",
    ),
    **dict.fromkeys(
        [
            ("brokers/beanstalk/pool.py", name, "connection.close")
            for name in ("close", "_take", "_connect", "connection")
        ],
        "to hang up never raises, and has no effect here",
    ),
    ("brokers/beanstalk/connection.py", "close", "self._stream.drop"): "a child's copy of a socket; never raises",
    ("brokers/beanstalk/stream.py", "close", "self.drop"): "never raises",
    ("brokers/beanstalk/stream.py", "_connected", "sock.connect"): "below the edge: dial",
    ("brokers/beanstalk/stream.py", "_fill", "self._sock.recv"): "below the edge: Stream",
    **dict.fromkeys(
        [
            ("brokers/beanstalk/stream.py", "line", "self._buffer.find"),
            ("brokers/beanstalk/subscription.py", "_commands", "wire.watch"),
            ("brokers/beanstalk/subscription.py", "_watch", "wire.watch"),
        ],
        "of bytes",
    ),
    **dict.fromkeys(
        [("stores/mongo/recover.py", "follow", start) for start in ("meta.find_one", "write", "meta.update_one")],
        "only a replica set has elections: tests/stores/test_replica_set.py",
    ),
    ("stores/mongo/schema.py", "date_rows", "jobs.update_many"): "a database of an older version that has jobs",
    ("stores/mongo/identity.py", "adopt", "meta.update_one"): "a database that has become a replica set's",
    ("stores/mongo/server/link.py", "_end_abandoned", "database.client.admin.command"): (
        "after an interrupt within the driver: tests/signals/test_interrupts.py"
    ),
}


#: Of the faults, without ``--proof``.
SHARE = 0.03


@pytest.fixture(scope="module")
def survey(
    mongod: Mongod, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Survey]:
    if beanstalkd_path() is None:
        missing("beanstalkd", "apt install beanstalkd")
    folder = tmp_path_factory.mktemp("steps")
    template = folder / "template.db"
    made = SqliteStore(template, synchronous="OFF")
    made.open()
    made.close()
    with closing(sqlite3.connect(template)) as connection, connection:  # each copy is a store of its own
        connection.execute("DELETE FROM kqueue_meta WHERE name IN ('store_id', 'bound_to', 'fence_floor')")
    tap = Tap()
    gc.freeze()  # so that no collection walks through all that other tests have left, in each of many children
    with pytest.MonkeyPatch.context() as patch, ExitStack() as servers:
        edges.install(tap, patch)
        client = servers.enter_context(shared_client(mongod))
        # The store's client waits half a minute; a transaction whose process was killed holds it up for a minute.
        servers.callback(servers.enter_context(mongod.client()).drop_database, "steps")
        tcp, unix = Beanstalkd(), Beanstalkd(unix=True)
        servers.callback(tcp.stop)
        servers.callback(unix.stop)
        places = [
            Place("sqlite", None, None, template, None),
            Place("sqlite+beanstalkd", None, tcp, template, None),
            Place("mongod", mongod, None, template, client, ("mongo",)),
            Place("mongod+beanstalkd", mongod, tcp, template, client, ("mongo",)),
            Place("sqlite+unix", None, unix, template, None),
        ]
        share = 1.0 if request.config.getoption("--proof") else SHARE
        seed = int(os.environ.get("TEST_SEED") or random.randrange(2**32))
        yield Survey({place.name: place for place in places}, tap, folder, share, seed)
    gc.unfreeze()


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("place", "operation"), CASES, ids=[f"{place}: {operation.name}" for place, operation in CASES]
)
def test_no_step_that_fails_breaks_an_invariant(place: str, operation: Operation, survey: Survey) -> None:
    print(f"seed {survey.seed}")
    found = survey.of(place, operation)
    assert found.broken == []
    assert found.points


@pytest.mark.proof  # many of them are made only after a fault
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("of_mongo", [False, True], ids=["sqlite and beanstalkd", "mongo"])
def test_every_io_call_of_the_stores_and_brokers_was_failed(
    survey: Survey, capsys: pytest.CaptureFixture[str], of_mongo: bool
) -> None:
    written = [site for site in _written() if ("mongo" in site.file) == of_mongo]
    cases = [case for case in CASES if case[0].startswith("mongod") == of_mongo]
    # First those in which others interfere: there a call that fails leads to more.
    found = survey.look(sorted(cases, key=lambda case: not case[1].name.endswith("others change")))
    assert found.broken == []
    missed = uncovered(written, found.calls)
    assert [str(site) for site in missed if _reason(site) is None] == [], "give these calls an operation"
    unreached = {why for (file, _, _), why in UNREACHED.items() if ("mongo" in file) == of_mongo}
    assert unreached - set(map(_reason, missed)) == set(), "these are reached, or gone"
    with capsys.disabled():
        print(f"\n{len(written) - len(missed)} of {len(written)} call sites, in {found.runs} runs")


def test_a_new_call_that_no_operation_makes_is_seen() -> None:
    source = "def settle(self):\n    self._connection.execute('DELETE')\n    return self._jobs.delete_one({})\n"
    found = list(sites("stores/new.py", source))
    assert [(site.function, site.text) for site in found] == [
        ("settle", "self._connection.execute('DELETE')"),
        ("settle", "self._jobs.delete_one({})"),
    ]
    first = Call("stores/new.py", 2, 2, len("    self._connection.execute('DELETE')"))
    assert uncovered(found, [first]) == [found[1]]


def _written() -> list[Site]:
    """Every call for I/O in the text of their files."""
    return [
        site
        for folder, within in FOLDERS
        for path in sorted(folder.rglob("*.py"))
        if path.parent.name != "memory"
        for site in sites(str(path.relative_to(within)), path.read_text())
    ]


def _reason(site: Site) -> str | None:
    return next(
        (
            why
            for (file, function, start), why in UNREACHED.items()
            if (site.file, site.function) == (file, function) and site.text.startswith(start)
        ),
        None,
    )
