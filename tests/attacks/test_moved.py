"""A store that is moved is not destroyed by those who used it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.driver import Site, site

SOME = 40
GONE = "the file is gone; it was moved or removed while this process used it"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "jobs"
    folder.mkdir()
    with site(folder) as found:
        yield found


@pytest.mark.parametrize("queues", [1, 2])
def test_nothing_is_made_where_it_was_and_it_goes_on_when_it_is_back(
    here: Site, tmp_path: Path, queues: int
) -> None:
    producer = here.start(*[here.url] * queues)
    for queue in range(queues):
        producer.do("add", queue, SOME)
    moved = tmp_path / "moved.db"
    here.path.rename(moved)
    assert "was removed or replaced while it was open" in producer.do("add", 0, SOME)["error"]
    for queue in [0, *range(queues)]:
        assert producer.do("add", queue, SOME)["taken"] == []
    assert GONE in producer.do("add", queues - 1, SOME)["error"]
    assert not here.path.exists()
    moved.rename(here.path)
    for queue in range(queues):
        assert producer.do("add", queue, SOME)["error"] is None
    assert here.lost() == []


def test_what_was_moved_is_whole(here: Site, tmp_path: Path) -> None:
    producer = here.start()
    producer.do("add", 0, SOME)
    moved = tmp_path / "moved.db"
    here.path.rename(moved)
    assert "All that was acknowledged is in the file itself" in producer.do("add", 0, SOME)["error"]
    assert here.lost(moved) == []


def test_killed_before_it_knew_that_the_file_was_moved(here: Site, tmp_path: Path) -> None:
    """No new process makes a file beside the log that holds the jobs."""
    producer = here.start()
    producer.do("add", 0, SOME)
    moved = tmp_path / "moved.db"
    here.path.rename(moved)
    producer.kill()
    size = here.wal.stat().st_size
    assert size
    new = here.start()
    assert "its log" in new.do("add", 0, SOME)["error"]
    assert "is there and may hold jobs" in new.errors[0]
    assert not here.path.exists()
    assert here.wal.stat().st_size == size
    here.wal.rename(tmp_path / "moved.db-wal")
    assert here.lost(moved) == []


def test_an_empty_file_under_its_name_is_not_filled(here: Site, tmp_path: Path) -> None:
    producer = here.start()
    producer.do("add", 0, SOME)
    here.path.rename(tmp_path / "moved.db")
    here.path.touch()
    for _ in range(2):
        assert producer.do("add", 0, SOME)["taken"] == []
    assert here.path.stat().st_size == 0
    assert here.lost(tmp_path / "moved.db") == []


def test_another_file_that_takes_its_name_does_not_take_its_log(here: Site, tmp_path: Path) -> None:
    """A backup that is put over a live file."""
    producer, idle = here.start(), here.start()
    producer.do("add", 0, SOME)
    backup = tmp_path / "backup.db"
    producer.do("close", 0)
    backup.write_bytes(here.path.read_bytes())
    producer.do("add", 0, SOME)
    idle.do("add", 0, SOME)
    old = tmp_path / "old.db"
    os.rename(here.path, old)
    os.rename(backup, here.path)
    assert "was removed or replaced" in producer.do("add", 0, SOME)["error"]
    assert "another log" in producer.do("add", 0, SOME)["error"]
    assert "was removed or replaced" in idle.do("counts", 0)
    after = [producer.do("add", 0, SOME), idle.do("add", 0, SOME)]
    assert [said["error"] for said in after] == [None, None]
    new = [id for said in after for id in said["taken"]]
    for driven in (producer, idle):
        driven.acknowledged = [id for id in driven.acknowledged if id not in new]
    assert here.lost(old) == []
    renewer = here.start()
    renewer.acknowledged = new
    assert here.lost() == []


def test_a_waiting_worker_goes_on_when_the_store_is_back(here: Site, tmp_path: Path) -> None:
    worker, producer = here.start(), here.start()
    producer.do("add", 0, 1)
    worker.do("work", 0, 1, "", "")
    moved = tmp_path / "moved.db"
    here.path.rename(moved)
    worker.ask("work", 0, 2, "", "")
    assert "was removed or replaced" in producer.do("counts", 0)
    assert GONE in producer.do("counts", 0)
    assert not here.path.exists()
    moved.rename(here.path)
    producer.acknowledged.clear()
    producer.do("add", 0, 3)
    assert worker.answer() == 2
    producer.acknowledged.clear()
    producer.do("add", 0, 1)
    assert here.lost() == []
