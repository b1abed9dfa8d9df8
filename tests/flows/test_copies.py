"""Copies of a store, and stores with one prefix, on one beanstalkd: each serves its own jobs and no other's.

The stores' clock is turned by hand. A copy is made as people make them: ``cp`` of the file, ``mongodump`` and
``mongorestore`` into a database of another name.
"""

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kqueue import JobInHand, KQueue
from kqueue.brokers.beanstalk.broker import BeanstalkBroker
from kqueue.contracts.broker import Pointer
from kqueue.contracts.rules import GRACE_S
from kqueue.contracts.store import JobStore
from kqueue.dispatch import naming
from kqueue.model import tubes
from kqueue.stores.memory.store import MemoryStore
from kqueue.system.clock import ManualClock
from tests.beanstalkd import Beanstalkd
from tests.faults.conftest import EMPTY, entries
from tests.flows.copies import Databases, Files
from tests.tubes import MINT, await_true

JOBS = 60

#: They look into the tubes right after an add.
pytestmark = pytest.mark.usefixtures("rings_at_once")


class Service:
    """A queue on one of the stores, and what it ran."""

    def __init__(self, store: JobStore, server: Beanstalkd, **options: Any) -> None:
        self.ran: list[Any] = []
        self.fences: set[int] = set()
        self.queue = KQueue(store, server.url, sweep_interval=15, **options)
        self.queue.add_handler("t", self._run)

    def _run(self, job: JobInHand) -> None:
        self.ran.append(job.payload)
        self.fences.add(job.fence)
        job.delete()


def test_a_copy_and_its_original_each_run_every_job_and_touch_no_pointer_of_the_other(
    places: Files | Databases, beanstalkd: Beanstalkd
) -> None:
    clock = ManualClock()
    with Service(places.store("original", clock), beanstalkd).queue as queue:
        queue.add_jobs("t", range(JOBS // 2))
        for number in range(JOBS // 2, JOBS):  # each with a pointer of its own
            queue.add_job("t", number, delay=0 if number % 2 else 30)
        before = queue.prefix
    places.copy("original", "copy")
    original, copy = (Service(places.store(name, clock), beanstalkd) for name in ("original", "copy"))
    with original.queue, copy.queue:
        assert (original.queue.prefix, copy.queue.prefix) == (before, copy.queue.prefix)
        assert original.queue.prefix != copy.queue.prefix
        clock.advance(30 + GRACE_S)
        stale = 0
        while len(original.ran) < JOBS or len(copy.ran) < JOBS:  # by turns, some jobs at a time
            for service in (copy, original):
                service.queue.sweep()
                report = service.queue.run_jobs(count_limit=7)
                stale += report.stale_pointers
                assert report.count or len(service.ran) == JOBS, "jobs wait, and nobody gets at them"
        assert sorted(original.ran) == sorted(copy.ran) == list(range(JOBS))
        assert stale == 0
        assert entries(beanstalkd, copy.queue.prefix) == EMPTY
        # The tube's own clock was not turned: what was delayed there has run from the store's.
        assert entries(beanstalkd, original.queue.prefix) == {**EMPTY, "delayed": JOBS // 4}


def test_a_copy_is_told_by_its_id_once_and_keeps_its_own(places: Files | Databases, beanstalkd: Beanstalkd) -> None:
    first = places.store("original")
    original = first.identity()
    first.close()
    places.copy("original", "copy")
    for _ in range(2):
        store = places.store("original")
        assert store.identity() == original
        store.close()
    copies = set()
    for _ in range(2):
        store = places.store("copy")
        copies.add(store.identity())
        store.close()
    assert len(copies) == 1
    assert copies != {original}


def test_stores_with_one_prefix_share_no_tube(places: Files | Databases, beanstalkd: Beanstalkd) -> None:
    clock = ManualClock()
    stores = [places.store("one", clock), places.store("two", clock), MemoryStore(clock)]
    services = [Service(store, beanstalkd, prefix="shop.") for store in stores]
    for number, service in enumerate(services):
        service.queue.add_jobs("t", [(number, job) for job in range(10)])
    assert len({service.queue.prefix for service in services}) == 3
    assert all(service.queue.prefix.startswith("shop.kq") for service in services)
    for number, service in enumerate(services):
        assert service.queue.run_jobs().count == 10
        assert sorted(service.ran) == [[number, job] for job in range(10)]
    for service in services:
        service.queue.close()


@pytest.mark.parametrize("kept", ["kq0a1b2c.", "shop."])
def test_a_store_of_an_older_version_gets_an_id_and_what_stands_in_its_old_tubes_is_put_anew(
    tmp_path: Path, beanstalkd: Beanstalkd, kept: str
) -> None:
    files, clock = Files(tmp_path), ManualClock()
    with KQueue(files.store("old", clock), sweep_interval=15) as queue:
        ids = queue.add_jobs("t", range(10))
    # As the version before left it: no id, its prefix in the store, its pointers in tubes named by that alone.
    with sqlite3.connect(files.path("old")) as connection:
        connection.execute("DELETE FROM kqueue_meta WHERE name IN ('store_id', 'bound_to', 'fence_floor')")
        connection.execute("UPDATE kqueue_jobs SET put_at = ?", (clock.time(),))
        connection.execute("INSERT OR REPLACE INTO kqueue_meta VALUES ('setting.prefix', ?)", (kept,))
    connection.close()
    old = BeanstalkBroker(("127.0.0.1", beanstalkd.port))
    old.open(kept)
    old.put([(Pointer("t", 65536, clock.time(), tuple(ids)), 0.0)])
    clock.advance(GRACE_S)

    service = Service(files.store("old", clock), beanstalkd)
    with service.queue as queue:
        assert queue.prefix == tubes.beginning("" if kept.startswith("kq") else kept, queue.store.identity())
        assert queue.sweep().put == 10
        report = queue.run_jobs()
        assert (report.count, report.stale_pointers) == (10, 0)
        assert min(service.fences) > 10**15  # it may be a copy, for all that one can tell
        assert queue.sweep().put == 0
    old.close()


def test_a_waiting_worker_notices_that_another_store_has_taken_the_place(
    places: Files | Databases, beanstalkd: Beanstalkd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "LOOK_S", 0.1)
    monkeypatch.setattr("kqueue.loops.runner.IDLE_S", 0.2)
    other = places.store("other")
    new_id = other.identity()
    other.close()
    service = Service(places.store("jobs"), beanstalkd)
    thread = threading.Thread(target=lambda: service.queue.run_jobs(wait=True))
    service.queue.add_job("t", "before")
    thread.start()
    await_true(lambda: service.ran == ["before"])
    try:
        places.replace("jobs", "other")
        with Service(places.store("jobs"), beanstalkd).queue as producer:
            assert producer.prefix == tubes.beginning("", new_id)
            tube = tubes.name(producer.prefix, "t")
            with beanstalkd.client() as client:
                await_true(lambda: tube in client.tubes() and _watching(client, tube) == 1)
            producer.add_job("t", "after")
            await_true(lambda: service.ran == ["before", "after"])
            await_true(lambda: entries(beanstalkd, producer.prefix) == EMPTY)
        assert service.queue.prefix == tubes.beginning("", new_id)
    finally:
        service.queue.stop()
        thread.join()
        service.queue.close()


def _watching(client: Any, tube: str) -> int:
    return int(client.stats_tube(tube)["current-watching"])


def test_a_file_in_the_place_of_one_that_was_removed_is_a_copy_also_where_it_gets_its_inode(
    tmp_path: Path,
) -> None:
    files = Files(tmp_path)
    store = files.store("jobs")
    original = store.identity()
    store.close()
    files.copy("jobs", "backup")
    inodes = []
    for _ in range(10):  # the file system is likely to give the number that is free
        inode = os.stat(files.path("jobs")).st_ino
        files.path("jobs").unlink()
        files.copy("backup", "jobs")
        inodes.append((inode, os.stat(files.path("jobs")).st_ino))
        store = files.store("jobs")
        assert store.identity() != original
        store.close()
    if not any(before == after for before, after in inodes):
        pytest.skip("this file system gave no number twice")


def test_a_moved_file_is_the_same_store(tmp_path: Path) -> None:
    files = Files(tmp_path)
    store = files.store("jobs")
    original = store.identity()
    store.close()
    files.path("jobs").rename(files.path("moved"))
    moved = files.store("moved")
    assert moved.identity() == original
    moved.close()


def test_of_many_that_open_a_copy_at_once_all_see_one_id(places: Files | Databases) -> None:
    store = places.store("original")
    original = store.identity()
    store.close()
    places.copy("original", "copy")
    stores = [places.store("copy") for _ in range(6)]
    seen: list[str] = []
    threads = [threading.Thread(target=_note(seen, one)) for one in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(stores)
    assert len(set(seen)) == 1
    assert original not in seen
    for one in stores:
        one.close()


def _note(seen: list[str], store: JobStore) -> Callable[[], None]:
    return lambda: seen.append(store.identity())


@pytest.mark.parametrize("length", [1, 187, 188, 190])
def test_a_type_of_any_length_has_a_tube_of_its_own(tmp_path: Path, beanstalkd: Beanstalkd, length: int) -> None:
    with KQueue(Files(tmp_path).store("jobs"), beanstalkd.url, prefix="p" * 10) as queue:
        types = ["t" * length, "t" * (length - 1) + "u"]
        for type in types:
            queue.add_handler(type, lambda job: job.delete())
            queue.add_job(type)
        with beanstalkd.client() as client:
            named = {tubes.name(queue.prefix, type) for type in types}
            assert len(named) == 2
            assert named <= set(client.tubes())
            assert all(tubes.beginning_of(tubes.name(queue.prefix, type), type) == queue.prefix for type in types)
        assert queue.run_jobs().count == 2


def test_tubes_that_no_store_has_served_for_a_day_are_named_and_emptied(
    tmp_path: Path, beanstalkd: Beanstalkd
) -> None:
    files, clock = Files(tmp_path), ManualClock()
    with Service(files.store("gone", clock), beanstalkd).queue as gone:
        gone.add_jobs("t", range(150))
        gone.add_job("u" * 190)
        left = gone.prefix
    old = BeanstalkBroker(("127.0.0.1", beanstalkd.port))
    old.open("shop.")  # as older versions named them
    old.put([(Pointer("t", 65536, clock.time(), (MINT.make(1)[0],)), 0.0)])
    with beanstalkd.client("strangers") as client:
        client.put(b"not ours")

    service = Service(files.store("jobs", clock), beanstalkd)
    with service.queue as queue, beanstalkd.client() as client:
        queue.add_job("t", "mine")
        assert [one for one in queue.checkup() if one.about == "tubes"] == []
        clock.advance(86_401)
        watched = beanstalkd.client()
        watched.watch(tubes.name(left, "t"))
        assert [one.text.split(",")[0] for one in queue.checkup() if one.about == "tubes"] == [
            f"tubes beginning with {left}: 1",
            "tubes beginning with shop.: 1",
        ]
        watched.close()
        [first, _] = [one.text for one in queue.checkup() if one.about == "tubes"]
        assert first.startswith(
            f"tubes beginning with {left}: 2, with 3 entries, and no store has served them for 24 h"
        )
        assert f"kqueue empty-tubes {left} empties" in first
        assert queue.empty_tubes(left) == 3
        assert queue.empty_tubes("shop.") == 1
        assert queue.empty_tubes("strangers") == 0
        with pytest.raises(ValueError, match="beginning: "):
            queue.empty_tubes(queue.prefix)
        assert [one for one in queue.checkup() if one.about == "tubes"] == []
        assert client.stats_tube("strangers")["current-jobs-ready"] == 1
        assert queue.run_jobs().count == 1
    with Service(files.store("gone", clock), beanstalkd).queue as again:  # it was in use after all
        again.sweep()
        assert again.run_jobs().count == 150
    old.close()
