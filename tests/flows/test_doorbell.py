"""Once jobs are stored, nothing says that they are not: whatever becomes of the doorbell."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from kqueue import BrokerUnavailable, JobInHand, KQueue
from kqueue.brokers.beanstalk import wire
from tests.beanstalkd import Beanstalkd
from tests.brokers.fake_server import FakeServer, figures
from tests.closing import Closes


class Odd(Exception):
    """Nobody knows it."""


class Strange(BaseException):
    """As a time-out of gevent is."""


@pytest.fixture(params=["beanstalkd", "embedded"])
def queue(request: pytest.FixtureRequest, tmp_path: Path, closes: Closes) -> KQueue:
    url = request.getfixturevalue("beanstalkd").url if request.param == "beanstalkd" else None
    return closes(KQueue(f"sqlite:///{tmp_path}/jobs.db", url, retry_delay=0))


def broken(queue: KQueue, error: BaseException, patch: pytest.MonkeyPatch) -> list[int]:
    """A broker whose every put raises ``error``; how often one was tried."""
    tried: list[int] = []

    def put(_: object) -> None:
        tried.append(1)
        raise error

    patch.setattr(queue.broker, "put", put)
    return tried


ERRORS = [
    Odd("who knows"),
    AttributeError("module 'select' has no attribute 'poll'"),
    ValueError("Exceeds the limit (4300 digits)"),
    OSError(24, "Too many open files"),
    RecursionError(),
    MemoryError(),
    BrokerUnavailable("down"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_no_error_of_the_doorbell_leaves_an_add(
    queue: KQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    with monkeypatch.context() as patch:
        tried = broken(queue, error, patch)
        ids = [queue.add_job("t", 0)]
        queue.flush()
        ids += [*queue.add_jobs("t", range(3)), queue.add_job("t", unique="one")]
    assert queue.counts("t")["ready"] == len(set(ids)) == 5
    assert len(tried) == 1  # then there is a back-off, whatever it was
    [record] = caplog.records
    assert "jobs run from the store until the broker is back" in record.getMessage()
    assert str(error) in record.getMessage()
    assert (record.exc_info is None) == isinstance(error, BrokerUnavailable)


@pytest.mark.parametrize("error", [Odd(), BrokerUnavailable("down")], ids=["unknown", "down"])
def test_no_error_of_the_doorbell_leaves_a_settle(
    queue: KQueue, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.tries == 1:
            broken(queue, error, monkeypatch)
            job.unget()
        else:
            job.delete()

    job_id = queue.add_job("t")
    assert queue.run_jobs(count_limit=1).count == 1
    job = queue.get_job(job_id)
    assert job is not None
    assert job.state == "ready"


def test_a_log_that_fails_fails_no_add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closes: Closes) -> None:
    class Full(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError(28, "No space left on device")

    logger = logging.Logger("full")
    logger.addHandler(Full())
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db", "beanstalk://127.0.0.1:1", logger=logger))
    broken(queue, Odd(), monkeypatch)
    queue.add_job("t")
    assert queue.counts("t")["ready"] == 1


@pytest.mark.parametrize(
    "text",
    [b"max-job-size: %b\n" % (b"9" * 6000), b"max-job-size: 10\n", b"max-job-size: no\n", b"\xff\n"],
    ids=["6000 digits", "too small", "no number", "no figures"],
)
def test_odd_figures_of_a_server_fail_no_add(tmp_path: Path, text: bytes) -> None:
    server = FakeServer(figures(text), hang_up=False)
    with KQueue(f"sqlite:///{tmp_path}/jobs.db", server.url) as queue:
        queue.add_job("t")
        assert queue.counts("t")["ready"] == 1
    server.stop()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, Strange])
@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.usefixtures("rings_at_once")
def test_what_interrupts_an_add_carries_its_ids(
    queue: KQueue, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], jobs: int
) -> None:
    """Also where it comes after the commit."""
    with monkeypatch.context() as patch:
        broken(queue, error(), patch)
        with pytest.raises(error) as caught:
            queue.add_jobs("t", range(jobs)) if jobs > 1 else queue.add_job("t", 0)
    ids = caught.value.job_ids
    found = [queue.get_job(job_id) for job_id in ids]
    assert [job.payload for job in found if job is not None] == list(range(jobs))
    assert ids[0] in caught.value.__notes__[0]
    queue.add_job("t")  # nothing is held
    queue.close()
    assert queue.counts("t")["ready"] == jobs + 1


def test_what_interrupts_the_write_itself_carries_ids_that_may_not_be_there(
    queue: KQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(queue.store, "add", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            queue.add_job("t")
    [job_id] = caught.value.job_ids  # type: ignore[attr-defined]
    assert queue.get_job(job_id) is None


def test_no_add_waits_for_a_silent_server(start_beanstalkd: Callable[..., Beanstalkd], tmp_path: Path) -> None:
    """A put would wait for minutes. Once the server answers, all is put."""
    server = start_beanstalkd()
    queue = KQueue(f"sqlite:///{tmp_path}/jobs.db", server.url + "?timeout=300")
    ids = [queue.add_job("t")]
    queue.flush()
    server.pause()
    ids += [queue.add_job("t") for _ in range(8)]
    server.resume()
    queue.close()
    found: list[str] = []
    with server.client(queue.prefix + "t") as client:
        while len(found) < 9:
            found += wire.decode(client.reserve(timeout=60).body).ids
    assert sorted(found) == sorted(ids)
    queue.close()


def test_a_sweep_that_waits_for_a_silent_server_holds_up_no_add(
    start_beanstalkd: Callable[..., Beanstalkd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its look is a call of its own, on a connection of its own."""
    server = start_beanstalkd()
    queue = KQueue(f"sqlite:///{tmp_path}/jobs.db", server.url + "?timeout=300")
    queue.add_job("t")
    queue.flush()
    pool = queue.broker._pools.get()  # type: ignore[attr-defined]
    with pool.connection():  # as a peek has it
        queue.add_job("t")
        queue.flush()
    assert queue.broker.depths(["t"])["t"]["ready"] == 2
    queue.close()
