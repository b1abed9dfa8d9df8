"""Backups, what is restored from them, and that nobody who held a job before can finish it after."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kqueue import KQueue, StoreError, StoreUnavailable
from kqueue.contracts.admission import Limit
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Claim, LeaseKey, Selection
from kqueue.contracts.settlements import Delete
from kqueue.contracts.store import JobStore
from kqueue.model.job import Row, State
from kqueue.stores.memory.store import MemoryStore
from kqueue.stores.sqlite.store import SqliteStore
from tests.closing import Closes
from tests.flows.copies import (
    Databases,
    Files,
)
from tests.tubes import MINT

#: Adds jobs one by one, without an end, and says their ids once they are acknowledged.
PRODUCER = """
import sys
from kqueue import KQueue
queue = KQueue(sys.argv[1])
while True:
    print(queue.add_job("t", "x" * 500), flush=True)
"""
#: Claims the one job, and settles it when it is told to, whatever has become of its store.
HOLDER = """
import sys
from kqueue import KQueue, StoreError
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Selection
from kqueue.contracts.settlements import Delete
store = KQueue(sys.argv[1]).store
[row] = store.claim(Selection(("t",)), Budget(1), "holder", store.now(), True).rows
print(row.id, row.fence, flush=True)
sys.stdin.readline()
for attempt in range(5):
    try:
        print(*store.settle([Delete(row.id, row.fence)], store.now()).lost, flush=True)
        break
    except StoreError:
        pass  # its file was replaced: it opens what is there now
"""


def started(code: str, url: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, url]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def claim(store: JobStore, owner: str, *limits: Limit) -> Claim:
    return store.claim(Selection(("t",), None, limits), Budget(1), owner, store.now(), True)


def ids_in(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {id for (id,) in connection.execute("SELECT id FROM kqueue_jobs")}


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[KQueue]:
    with KQueue(SqliteStore(tmp_path / "jobs.db", synchronous="OFF")) as queue:
        yield queue


def test_a_backup_while_jobs_are_added_holds_all_that_were_acknowledged_before(
    queue: KQueue, tmp_path: Path
) -> None:
    producer = started(PRODUCER, f"sqlite:///{tmp_path}/jobs.db?synchronous=OFF")
    assert producer.stdout is not None
    try:
        for number in range(3):
            acknowledged = {producer.stdout.readline().strip() for _ in range(30)}
            target = tmp_path / f"backup-{number}"
            queue.backup(target)
            held = ids_in(target)
            assert acknowledged <= held
            assert os.stat(target).st_mode & 0o777 == 0o600
        after = {producer.stdout.readline().strip() for _ in range(30)}  # it was not held up for good
    finally:
        producer.kill()
        producer.communicate()
    assert after <= {id for id in after if queue.get_job(id)}
    assert {path.name for path in tmp_path.iterdir()} == {
        "jobs.db", "jobs.db-wal", "jobs.db-shm", "backup-0", "backup-1", "backup-2",
    }  # fmt: skip


def test_a_backup_opens_no_descriptor_of_the_live_file_that_it_closes(
    queue: KQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *how, **more: opened.append(str(path)) or real(path, *how, **more))
    queue.add_job("t")
    queue.backup(tmp_path / "backup")
    assert not [path for path in opened if path.startswith(str(tmp_path / "jobs.db"))]
    # Its locks are still there: another process is kept from leaving the log behind.
    probe = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0)\n"
        "try: print(c.execute('PRAGMA journal_mode = DELETE').fetchone())\n"
        "except sqlite3.OperationalError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, str(tmp_path / "jobs.db")], capture_output=True, text=True, check=True
    )
    assert "locked" in done.stdout


def test_what_is_there_is_kept_unless_it_is_to_be_replaced(queue: KQueue, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    target.write_text("precious")
    with pytest.raises(ValueError, match=f"path: {target} is there already"):
        queue.backup(target)
    assert target.read_text() == "precious"
    job_id = queue.add_job("t")
    queue.backup(target, replace=True)
    assert ids_in(target) == {job_id}
    with pytest.raises(ValueError, match="same file"):
        queue.backup(tmp_path / "jobs.db", replace=True)
    with pytest.raises(StoreError, match="no such/backup: cannot be written"):
        queue.backup(tmp_path / "no such" / "backup")
    with pytest.raises(TypeError, match="path: "):
        queue.backup(7)  # type: ignore[arg-type]


def test_a_damaged_store_gives_no_backup(tmp_path: Path) -> None:
    with KQueue(f"sqlite:///{tmp_path}/jobs.db") as queue:
        queue.add_jobs("t", ["x" * 1000] * 50)
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [page] = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'kqueue_jobs_ready'"
        ).fetchone()
        [size] = connection.execute("PRAGMA page_size").fetchone()
    with (tmp_path / "jobs.db").open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\x0a" + b"\0" * 40)  # an index without entries
    with KQueue(f"sqlite:///{tmp_path}/jobs.db") as queue, pytest.raises(StoreError, match="damaged"):
        queue.backup(tmp_path / "backup")
    assert not list(tmp_path.glob("backup*"))


def test_stores_that_have_no_backup_name_what_has(tmp_path: Path, mongod: object, mongo_database: str) -> None:
    with KQueue("memory:") as queue, pytest.raises(StoreError, match="memory: .*sqlite:"):
        queue.backup(tmp_path / "backup")
    url = mongod.url(mongo_database)  # type: ignore[attr-defined]
    with KQueue(url) as queue:
        with pytest.raises(StoreError, match="mongodump"):
            queue.backup(tmp_path / "backup")
        with pytest.raises(StoreError, match=r"mongorestore.*--mark"):
            queue.restore(tmp_path / "backup")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["restore", "cp"])
def test_a_holder_from_before_a_restore_cannot_finish_what_a_newer_one_has(tmp_path: Path, how: str) -> None:
    url, path = f"sqlite:///{tmp_path}/jobs.db", tmp_path / "jobs.db"
    with KQueue(url) as queue:
        job_id = queue.add_job("t")
        queue.backup(tmp_path / "backup")
    holder = started(HOLDER, url)
    assert holder.stdout is not None
    assert holder.stdout.readline().split() == [job_id, "1"]  # given after the backup
    if how == "restore":
        with pytest.raises(StoreUnavailable, match="in use"):
            KQueue(url).restore(tmp_path / "backup", replace=True)
        assert ids_in(path) == {job_id}
    # The operator does not know of the holder, and makes room by hand.
    for suffix in ("-wal", "-shm", ""):
        if Path(f"{path}{suffix}").exists():
            Path(f"{path}{suffix}").rename(f"{path}.old{suffix}")
    if how == "restore":
        assert KQueue(url).restore(tmp_path / "backup") == []
    else:
        shutil.copy(tmp_path / "backup", path)

    with KQueue(url) as queue:
        store = queue.store
        [mine] = claim(store, "newer").rows
        assert mine.id == job_id
        assert mine.fence > 10**15
        lost, _ = holder.communicate("\n", timeout=120)
        assert lost.split() == [job_id]
        [row] = store.get([job_id])
        assert (row.state, row.fence, row.lease_owner) == (State.RUNNING, mine.fence, "newer")
        assert store.settle([Delete(job_id, mine.fence)], store.now()).lost == frozenset()
        assert store.get([job_id]) == []


def test_each_restore_of_one_backup_begins_above_the_last(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    with KQueue(url) as queue:
        queue.add_job("t")
        queue.backup(tmp_path / "backup")
    fences, ids = [], set()
    for number in range(1, 4):
        assert KQueue(url).restore(tmp_path / "backup", replace=True)[0].endswith(f"before-restore-{number}")
        with KQueue(url) as queue:
            fences.append(claim(queue.store, "holder").rows[0].fence)
            ids.add(queue.store.identity())
    assert fences == sorted(set(fences))
    assert len(ids) == 3


@pytest.mark.parametrize("limits", [(), (Limit("t", running=5),)], ids=["no limits", "limits"])
def test_fences_begin_anew_where_a_store_is_marked_as_restored(
    places: Files | Databases,
    limits: tuple[Limit, ...],
) -> None:
    store = places.store("jobs")
    now = store.now()
    ids = MINT.make(2)
    store.add([Row(id, "t", b"1", "json", 1, State.READY, 0.0, now, 60.0, created_at=now) for id in ids])
    [before] = claim(store, "before", *limits).rows
    # Over by the clock that decides: MongoDB goes by the server's own.
    assert store.renew([LeaseKey(before.id, before.fence, 0.0)], now) == frozenset()
    known = store.identity()
    store.begin_anew()
    assert store.identity() != known
    store.recover(now + 100, 3, 10)
    claimed = [claim(store, f"after {number}", *limits).rows[0] for number in range(2)]
    assert {row.id for row in claimed} == {*ids}
    assert all(row.fence > 10**15 for row in claimed)
    assert {row.id: row.fence for row in store.get(ids)} == {row.id: row.fence for row in claimed}
    assert store.settle([Delete(before.id, before.fence)], now).lost == {before.id}
    assert store.settle([Delete(row.id, row.fence) for row in claimed], now).lost == frozenset()
    store.close()


def test_what_is_no_store_is_not_restored(tmp_path: Path, closes: Closes) -> None:
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db"))
    with pytest.raises(ValueError, match="backup: there is no file"):
        queue.restore(tmp_path / "missing")
    (tmp_path / "text").write_text("no database at all" * 100)
    with pytest.raises(StoreError, match="text: could not be copied"):
        queue.restore(tmp_path / "text")
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE books (title)")
    with pytest.raises(ValueError, match="holds no store of KQueue"):
        queue.restore(tmp_path / "other.db")
    with KQueue(f"sqlite:///{tmp_path}/good.db") as good:
        good.backup(tmp_path / "backup")
    (tmp_path / "jobs.db-wal").write_text("jobs that were not written back")
    with pytest.raises(ValueError, match="jobs.db-wal lies there without its file"):
        queue.restore(tmp_path / "backup")
    assert not (tmp_path / "jobs.db").exists()
    assert (tmp_path / "jobs.db-wal").exists()


def test_a_memory_store_has_an_id_of_its_own() -> None:
    one, other = MemoryStore(), MemoryStore()
    assert one.identity() == one.identity() != other.identity()
