"""Settles whose reply was lost: what is unknown is said to be unknown, and what is known is said as it is."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kqueue import JobInHand, KQueue
from kqueue.model.errors import LeaseLost, StoreError, StoreUnavailable
from kqueue.model.events import Finished, LostLease
from kqueue.stores.memory.store import MemoryStore
from kqueue.stores.mongo.store import MongoStore
from kqueue.stores.sqlite.file.file import SqliteFile
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from tests.closing import Closes
from tests.mongod import Mongod
from tests.stores.mongo_helpers import LossyProxy

TTR = 30.0


class LostReply:
    """A store of which the replies to some settles are lost: it has done them, or it has not."""

    def __init__(self, store: Any, clock: ManualClock) -> None:
        self._store = store
        self._clock = clock
        #: For each that is to be lost: whether it is done, and seconds that pass then.
        self.lose: list[tuple[bool, float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def settle(self, *arguments: Any) -> Any:
        if not self.lose:
            return self._store.settle(*arguments)
        is_done, seconds = self.lose.pop(0)
        if is_done:
            self._store.settle(*arguments)
        self._clock.advance(seconds)
        error = StoreUnavailable("the reply was lost")
        error.may_be_done = True
        raise error


@pytest.fixture(params=["memory", "sqlite"])
def house(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[KQueue, LostReply, KQueue, ManualClock]]:
    """A queue on a store whose replies may be lost, another on the same store, and their clock."""
    clock = ManualClock()
    only = MemoryStore(clock) if request.param == "memory" else SqliteStore(tmp_path / "jobs.db", clock=clock)
    lossy = LostReply(only, clock)
    with KQueue(store=lossy, settle_ms=0) as queue, KQueue(store=only) as other:
        yield queue, lossy, other, clock


def delete_again(job: JobInHand) -> None:
    with pytest.raises(StoreUnavailable):
        job.delete()
    job.delete()


def test_a_delete_that_was_done_and_whose_lease_holds_is_done(house: Any, caplog: Any) -> None:
    queue, store, _, _ = house
    queue.add_handler("t", delete_again)
    queue.add_job("t", ttr=TTR)
    store.lose = [(True, 1.0)]
    report = queue.run_jobs()
    assert (report.count, report.deleted, report.lost_lease, report.unknown) == (1, 1, 0, 0)
    assert "lease" not in caplog.text


def test_a_delete_that_was_not_done_is_done_by_the_second_attempt(house: Any) -> None:
    queue, store, _, _ = house
    queue.add_handler("t", delete_again)
    queue.add_job("t", ttr=TTR)
    store.lose = [(False, 1.0)]
    report = queue.run_jobs()
    assert (report.deleted, report.unknown, sum(queue.counts().values())) == (1, 0, 0)


def test_a_delete_of_which_nobody_can_tell_is_unknown(house: Any, caplog: Any) -> None:
    queue, store, _, _ = house
    heard: list[Any] = []
    queue.subscribe(heard.append)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        with pytest.raises(StoreUnavailable):
            job.delete()
        with pytest.raises(LeaseLost, match="unknown.*may have done it") as raised:
            job.delete()
        assert raised.value.unknown
        assert job.lease_lost

    queue.add_job("t", ttr=TTR)
    store.lose = [(True, TTR + 1)]  # its lease may have been taken meanwhile
    report = queue.run_jobs()
    assert (report.count, report.deleted, report.lost_lease, report.unknown) == (1, 0, 0, 1)
    assert "whether it was deleted is unknown" in caplog.text
    assert "changed nothing" not in caplog.text
    (event,) = [event for event in heard if isinstance(event, LostLease | Finished)]
    assert (type(event), event.outcome, event.unknown) == (LostLease, "deleted", True)
    stats = queue.stats().types["t"]
    assert (stats.finished, stats.lost_lease, stats.unknown) == (0, 0, 1)


def test_a_lease_that_was_lost_is_lost_where_no_reply_was(house: Any, caplog: Any) -> None:
    queue, _, other, clock = house
    other.add_handler("t", JobInHand.delete)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        clock.advance(TTR + 1)
        other.sweep()
        other.run_jobs()
        with pytest.raises(LeaseLost, match="Nothing was changed") as raised:
            job.delete()
        assert not raised.value.unknown

    queue.add_job("t", ttr=TTR)
    report = queue.run_jobs()
    assert (report.lost_lease, report.unknown) == (1, 0)
    assert "changed nothing" in caplog.text


def test_a_store_that_refused_at_first_leaves_nothing_unknown(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was locked, say: nothing was sent."""
    queue, store, other, clock = house
    other.add_handler("t", JobInHand.delete)

    def refuse(*_: Any) -> None:
        monkeypatch.delattr(store, "settle")
        raise StoreUnavailable("locked")

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        monkeypatch.setattr(store, "settle", refuse, raising=False)
        with pytest.raises(StoreUnavailable):
            job.delete()
        clock.advance(TTR + 1)
        other.sweep()
        other.run_jobs()
        with pytest.raises(LeaseLost, match="Nothing was changed"):
            job.delete()

    queue.add_job("t", ttr=TTR)
    assert queue.run_jobs().lost_lease == 1


@pytest.mark.parametrize("act", ["retry", "unget", "raise"])
def test_what_was_written_by_the_first_attempt_is_not_told_as_lost(house: Any, act: str, caplog: Any) -> None:
    queue, store, _, _ = house

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if act == "raise":
            raise ValueError("no")
        {"retry": lambda: job.retry("why", 1000), "unget": lambda: job.unget(delay=1000)}[act]()

    queue.add_job("t", ttr=TTR)
    store.lose = [(True, 0.0)]
    with suppress(StoreUnavailable):  # where no handler was there to get it
        queue.run_jobs()
    queue.run_jobs()  # settles what the loop before has left
    assert store.lose == []
    assert queue.stats().types["t"].lost_lease == 0
    assert "changed nothing" not in caplog.text
    assert queue.counts()["delayed"] == 1


@pytest.mark.parametrize("is_committed", [True, False])
def test_an_sqlite_file_that_fails_at_the_commit_may_have_done_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_committed: bool, closes: Closes
) -> None:
    store = SqliteStore(tmp_path / "jobs.db")
    queue = closes(KQueue(store=store, settle_ms=0))
    write = SqliteFile.write

    @contextmanager
    def fail(file: SqliteFile) -> Iterator[Any]:
        if is_committed:
            with write(file) as connection:
                yield connection
        raise StoreError("was removed or replaced")

    errors: list[StoreError] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(SqliteFile, "write", fail)
            with pytest.raises(StoreError) as raised:
                job.delete()
        errors.append(raised.value)
        job.delete()

    queue.add_job("t")
    report = queue.run_jobs()
    assert [error.may_be_done for error in errors] == [is_committed]
    assert (report.deleted, report.lost_lease, report.unknown) == (1, 0, 0)


# -- on a genuine server ---------------------------------------------------------------------------------


@pytest.fixture
def behind_proxy(mongod: Mongod, mongo_database: str) -> Iterator[Callable[[], tuple[KQueue, LossyProxy]]]:
    with closing(LossyProxy(mongod.port)) as proxy:
        url = f"mongodb://127.0.0.1:{proxy.port}/{mongo_database}?directConnection=true"
        with KQueue(store=MongoStore(url), settle_ms=0) as queue:
            yield lambda: (queue, proxy)


def test_a_delete_whose_replies_are_lost_is_never_told_as_a_lost_lease(behind_proxy: Any, caplog: Any) -> None:
    queue, proxy = behind_proxy()
    raised: list[StoreUnavailable] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        proxy.lose("delete", 2)  # the driver's own second sending too
        with pytest.raises(StoreUnavailable, match="may have been done all the same") as error:
            job.delete()
        raised.append(error.value)

    job_id = queue.add_job("t")
    with caplog.at_level(logging.WARNING):
        report = queue.run_jobs()
    assert raised[0].may_be_done
    assert queue.get_job(job_id) is None
    assert (report.deleted, report.lost_lease, report.unknown) == (1, 0, 0)
    assert "changed nothing" not in caplog.text


def test_a_delete_whose_reply_is_lost_after_its_lease_is_unknown(behind_proxy: Any, caplog: Any) -> None:
    queue, proxy = behind_proxy()

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        over_at = queue.store.now() + job.ttr
        while queue.store.now() <= over_at:
            pass
        proxy.lose("delete")
        job.delete()

    queue.add_job("t", ttr=1)
    report = queue.run_jobs()
    assert (report.deleted, report.lost_lease, report.unknown) == (0, 0, 1)
    assert "whether it was deleted is unknown" in caplog.text
