"""A SQLite store that may only be read: looked at as any other, never written, and nothing is made beside it."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kqueue import KQueue
from tests.unprivileged import asked, read_only

SAID = "this user may only read it, and nothing was changed"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "jobs"
    folder.mkdir()
    return folder


@pytest.fixture
def queue(folder: Path) -> Iterator[KQueue]:
    with KQueue(f"sqlite:///{folder}/jobs.db") as queue:
        yield queue


def looks(job_id: str) -> str:
    return (
        f"queue.counts()['ready'], len(queue.checkup()), queue.workers(), queue.paused(),"
        f" queue.get_job('{job_id}').payload, queue.why('{job_id}')[0].cause.value, len(queue.jobs(state='ready'))"
    )


def looked(ready: int) -> str:
    return str((ready, 1, [], {}, "Ann", "no worker", ready))


@pytest.mark.parametrize("left", ["all", "log", "nothing"])
def test_what_was_closed_is_read_whatever_lies_beside_it(queue: KQueue, folder: Path, left: str) -> None:
    job_id = queue.add_job("greet", "Ann")
    if left == "log":  # as a process that was killed leaves it, in a copy that left the index out
        shutil.copytree(folder, folder.with_name("killed"))
        folder = folder.with_name("killed")
        (folder / "jobs.db-shm").unlink()
        assert (folder / "jobs.db-wal").stat().st_size
    else:
        queue.close()
        assert not (folder / "jobs.db-wal").stat().st_size
    if left == "nothing":
        (folder / "jobs.db-wal").unlink()
        (folder / "jobs.db-shm").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with read_only(folder), asked(f"sqlite:///{folder}/jobs.db") as other:
        assert other.ask(looks(job_id)) == looked(1)
        assert SAID in other.ask("queue.add_job('greet')")
        assert SAID in other.ask("queue.sweep()")
        assert other.ask(looks(job_id)) == looked(1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_backup_is_read(queue: KQueue, folder: Path) -> None:
    job_id = queue.add_job("greet", "Ann")
    backup = folder.with_name("backup")
    backup.mkdir()
    queue.backup(backup / "jobs.db")
    with read_only(backup), asked(f"sqlite:///{backup}/jobs.db") as other:
        assert other.ask(looks(job_id)) == looked(1)
        # A copy has tubes of its own.
        assert other.ask("queue.prefix") != queue.prefix
    assert [path.name for path in backup.iterdir()] == ["jobs.db"]


def test_who_reads_sees_what_another_user_writes(queue: KQueue, folder: Path) -> None:
    job_id = queue.add_job("greet", "Ann")
    with read_only(folder), asked(f"sqlite:///{folder}/jobs.db") as other:
        assert other.ask(looks(job_id)) == looked(1)
        queue.add_job("greet")
        assert other.ask(looks(job_id)) == looked(2)
        assert other.ask("queue.prefix") == queue.prefix


@pytest.mark.parametrize("only", ["folder", "file"])
def test_who_reads_what_lies_alone_sees_when_it_is_written(queue: KQueue, folder: Path, only: str) -> None:
    """A file that may be written in a folder that may not; and the other way round."""
    job_id = queue.add_job("greet", "Ann")
    queue.close()
    (folder / "jobs.db-wal").unlink()
    (folder / "jobs.db-shm").unlink()
    path = folder if only == "folder" else folder / "jobs.db"
    mode = path.stat().st_mode
    path.chmod(mode & ~0o222)
    with asked(f"sqlite:///{folder}/jobs.db") as other:
        assert other.ask(looks(job_id)) == looked(1)
        assert [path.name for path in folder.iterdir()] == ["jobs.db"]
        path.chmod(mode)
        queue.add_job("greet")
        assert other.ask(looks(job_id)) == looked(2)
        # Now that it may, it writes.
        assert len(other.ask("queue.add_job('greet')")) == 28
        assert queue.counts()["ready"] == 3


def test_a_mounted_folder_is_read(queue: KQueue, folder: Path) -> None:
    mount = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"
    mounted = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    if os.geteuid() or subprocess.run([*mounted, "true"], check=False, capture_output=True).returncode:
        pytest.skip("only root may mount")
    job_id = queue.add_job("greet", "Ann")
    with asked(f"sqlite:///{folder}/jobs.db", before=mounted) as other:
        assert other.ask(looks(job_id)) == looked(1)
        assert SAID in other.ask("queue.add_job('greet')")
    queue.close()
    with asked(f"sqlite:///{folder}/jobs.db", before=mounted) as other:
        assert other.ask(looks(job_id)) == looked(1)


def test_what_cannot_be_read_as_it_is_says_so(queue: KQueue, folder: Path) -> None:
    queue.add_job("greet")
    queue.close()
    with closing(sqlite3.connect(folder / "jobs.db")) as file, file:
        file.execute("UPDATE kqueue_meta SET value = 3 WHERE name = 'schema_version'")
    with closing(sqlite3.connect(folder / "other.db")) as file, file:
        file.execute("CREATE TABLE other (x)")
    with read_only(folder):
        with asked(f"sqlite:///{folder}/jobs.db") as other:
            assert "its schema has version 3" in other.ask("queue.counts()")
        with asked(f"sqlite:///{folder}/other.db") as other:
            assert "it holds no store of KQueue, and this user may only read it" in other.ask("queue.counts()")
    (folder / "jobs.db").chmod(0)
    with asked(f"sqlite:///{folder}/jobs.db") as other:
        assert "may not be opened by this user; change its permissions" in other.ask("queue.counts()")
