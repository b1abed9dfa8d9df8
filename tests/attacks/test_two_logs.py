"""No second write-ahead log comes to be on one file without a word before the next acknowledgement."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.attacks.driver import Site, mounting, site, url_of

#: Jobs that are added at a time. Many enough to fill pages of the file.
SOME = 40


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "jobs"
    folder.mkdir()
    with site(folder) as found:
        yield found


@pytest.mark.parametrize("queues", [1, 2])
@pytest.mark.parametrize("what", ["copy", "copytree"])
def test_a_copy_in_a_process_that_uses_the_file(here: Site, what: str, queues: int) -> None:
    """It drops the locks of SQLite; another program's close then removed the log."""
    producer, other = here.start(*[here.url] * queues), here.start()
    producer.do("add", 0, SOME)
    producer.do("add", queues - 1, SOME)
    producer.do(what, str(here.path))
    here.visit()
    other.do("add", 0, SOME)
    other.do("close", 0)
    here.visit()
    producer.do("add", 0, SOME)
    producer.do("add", queues - 1, SOME)
    here.visit()
    other.do("add", 0, SOME)
    assert producer.errors == other.errors == []
    assert len(producer.acknowledged + other.acknowledged) == 6 * SOME
    assert here.lost() == []


def test_a_copy_and_a_clean_close(here: Site) -> None:
    """Its checkpoint wrote old pages over the jobs of others."""
    producer, other = here.start(), here.start()
    producer.do("add", 0, SOME)
    producer.do("copy", str(here.path))
    other.do("add", 0, SOME)
    other.do("close", 0)
    here.visit()
    producer.do("add", 0, SOME)
    other.do("add", 0, SOME)
    producer.do("close", 0)
    other.do("add", 0, SOME)
    assert here.lost() == []


def test_a_handler_that_copies_the_file(here: Site) -> None:
    """A nightly backup, as a job."""
    worker, producer = here.start(), here.start()
    producer.do("add", 0, SOME)
    worker.ask("work", 0, SOME, "copy", str(here.path))
    for _ in range(5):
        here.visit()
        producer.do("close", 0)
        producer.do("counts", 0)
    assert worker.answer() == SOME
    worker.do("close", 0)
    assert producer.do("counts", 0)["ready"] == 0
    producer.acknowledged.clear()
    producer.do("add", 0, SOME)
    assert here.lost() == []


def test_a_second_name_is_refused_while_the_first_is_in_use(here: Site, tmp_path: Path) -> None:
    """Each name of a file has a log of its own."""
    one = here.start()
    one.do("add", 0, SOME)
    link = tmp_path / "link.db"
    os.link(here.path, link)
    other = here.start(url_of(link), here.url)
    assert "another log of this file is still in use" in other.do("add", 0, SOME)["error"]
    other.do("add", 1, SOME)
    one.do("add", 0, SOME)
    assert len(one.acknowledged) == 2 * SOME
    assert len(other.acknowledged) == SOME
    assert here.lost() == []


def test_a_second_name_in_one_process(here: Site, tmp_path: Path) -> None:
    both = here.start()
    both.do("add", 0, 1)
    link = tmp_path / "link.db"
    os.link(here.path, link)
    both = here.start(here.url, url_of(link))
    both.do("add", 0, SOME)
    assert "another log of this file is still in use" in both.do("add", 1, SOME)["error"]
    both.do("add", 0, SOME)
    assert here.lost() == []


def test_a_symbolic_link_is_the_same_place(here: Site, tmp_path: Path) -> None:
    one = here.start()
    one.do("add", 0, SOME)
    link = tmp_path / "link.db"
    link.symlink_to(here.path)
    other = here.start(url_of(link))
    for _ in range(2):
        other.do("add", 0, SOME)
        one.do("add", 0, SOME)
    assert other.errors == []
    assert list(tmp_path.glob("link*")) == [link]
    assert here.lost() == []


def test_a_file_that_is_mounted_is_refused_and_the_folder_named(here: Site, tmp_path: Path) -> None:
    one = here.start()
    one.do("add", 0, SOME)
    place = tmp_path / "x.db"
    place.touch()
    other = here.start(url_of(place), before=mounting("mount", "--bind", str(here.path), str(place)))
    assert "the file itself is a mount point" in other.do("add", 0, SOME)["error"]
    assert "mount the folder" in other.errors[0]
    one.do("add", 0, SOME)
    assert here.lost() == []


def test_a_folder_that_is_mounted_is_shared(here: Site, tmp_path: Path) -> None:
    one = here.start()
    one.do("add", 0, SOME)
    place = tmp_path / "mounted"
    place.mkdir()
    other = here.start(url_of(place / "jobs.db"), before=mounting("mount", "--bind", str(here.folder), str(place)))
    for _ in range(2):
        other.do("add", 0, SOME)
        one.do("add", 0, SOME)
    assert other.errors == one.errors == []
    assert here.lost() == []


@pytest.mark.parametrize("queues", [1, 2])
@pytest.mark.parametrize("name", ["wal", "shm"])
def test_a_log_that_is_removed_is_told_of_and_what_it_held_is_saved(here: Site, name: str, queues: int) -> None:
    producer = here.start(*[here.url] * queues)
    producer.do("add", 0, SOME)
    producer.do("add", queues - 1, SOME)
    getattr(here, name).unlink()
    said = producer.do("add", 0, SOME)
    assert (said["taken"], len(said["not_taken"])) == ([], 1)
    assert f"its -{name} was removed or replaced while it was open" in said["error"]
    assert "All that was acknowledged is in the file itself" in said["error"]
    for queue in range(queues):
        assert producer.do("add", queue, SOME)["error"] is None
    assert here.lost() == []


def test_a_log_that_is_removed_and_only_made_anew_by_another_program(here: Site) -> None:
    producer = here.start()
    producer.do("add", 0, SOME)
    here.wal.unlink()
    with suppress(sqlite3.Error):
        here.visit()
    assert here.wal.stat().st_size == 0
    assert "All that was acknowledged is in the file itself" in producer.do("add", 0, SOME)["error"]
    producer.do("add", 0, SOME)
    assert here.lost() == []


def test_a_log_that_is_removed_and_replaced_by_another_program(here: Site) -> None:
    """What the old one holds can not be saved any more: but the next call tells."""
    producer = here.start()
    producer.do("add", 0, SOME)
    producer.do("close", 0)
    producer.do("add", 0, SOME)
    here.wal.unlink()
    here.shm.unlink()
    with closing(sqlite3.connect(here.path)) as other:
        other.execute("CREATE TABLE mine (number)")
        said = producer.do("add", 0, 1)
    assert said["taken"] == []
    assert "its -wal was removed or replaced while it was open" in said["error"]
    assert "All that was acknowledged" not in said["error"]


def test_who_does_not_know_yet_that_the_log_is_gone_keeps_others_from_a_new_one(here: Site) -> None:
    one, idle = here.start(), here.start()
    idle.do("add", 0, SOME)
    one.do("add", 0, SOME)
    here.wal.unlink()
    assert "its -wal was removed" in one.do("add", 0, SOME)["error"]
    assert "another log of this file is still in use" in one.do("add", 0, SOME)["error"]
    assert not here.wal.exists()
    assert "its -wal was removed" in idle.do("counts", 0)
    assert one.do("add", 0, SOME)["error"] is None
    assert idle.do("add", 0, SOME)["error"] is None
    assert here.lost() == []


def test_a_fork_under_copies(here: Site) -> None:
    producer, other = here.start(here.url, here.url), here.start()
    for queue in (0, 1, 0):
        producer.do("add", queue, SOME)
        producer.do("fork", queue, SOME, str(here.path))
        other.do("add", 0, 1)
        other.do("close", 0)
        here.visit()
    assert producer.errors == other.errors == []
    assert here.lost() == []
