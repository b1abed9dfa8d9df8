"""From a URL to a store."""

import logging
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kqueue.model.errors import StoreError, StoreUnavailable
from kqueue.stores import open_store
from kqueue.stores.memory.store import MemoryStore
from kqueue.stores.sqlite.store import SqliteStore

ROOT = Path(__file__).parents[2]


def test_memory():
    assert isinstance(open_store("memory:"), MemoryStore)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:///jobs.db", "jobs.db"),
        ("sqlite:///in/folder.db?synchronous=OFF&busy_timeout=0.5", "in/folder.db"),
        ("sqlite:///my%20jobs%3F.db", "my jobs?.db"),
        ("sqlite:///a#b.db", "a#b.db"),
    ],
)
def test_a_relative_file(url, name, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path)
    store = open_store(url)
    assert isinstance(store, SqliteStore)
    assert not (tmp_path / name).exists()
    store.open()
    store.close()
    assert (tmp_path / name).exists()


@pytest.mark.parametrize(
    "url",
    ["sqlite:///jobs.db", "sqlite:///my%20jobs%3F%25.db?synchronous=OFF", "sqlite:////tmp/a%2Fb.db?busy_timeout=1"],
)
def test_a_url_for_other_processes_names_the_same_file_in_any_folder(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = open_store(url)
    shared = here.shared_url
    assert shared is not None
    monkeypatch.chdir("/")
    there = open_store(shared)
    assert (there.address, there.shared_url) == (here.address, shared)


def test_a_url_for_other_processes_has_all_options():
    store = open_store("sqlite:////tmp/a.db?busy_timeout=0.25&mode=660&synchronous=OFF")
    assert store.shared_url == "sqlite:////tmp/a.db?synchronous=OFF&busy_timeout=0.25&mode=0660"


@pytest.mark.parametrize(
    ("query", "mode"), [("", 0o600), ("?mode=0660", 0o660), ("?mode=640", 0o640), ("?mode=0777", 0o777)]
)
def test_a_new_file_has_the_permissions_asked_for(tmp_path, query, mode):
    store = open_store(f"sqlite:///{tmp_path}/jobs.db{query}")
    store.open()
    files = list(tmp_path.iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {mode}
    store.close()


def test_a_file_that_is_there_keeps_its_permissions(tmp_path):
    path = tmp_path / "jobs.db"
    path.touch()
    path.chmod(0o640)
    store = open_store(f"sqlite:///{path}?mode=0660")
    store.open()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    store.close()


def test_a_file_that_may_not_be_made_is_named_and_not_made(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/jobs.db", create=False)
    assert not store.exists()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=rf"sqlite:///{tmp_path}/jobs\.db: there is no such file"):
            store.open()
        assert list(tmp_path.iterdir()) == []
    maker = open_store(f"sqlite:///{tmp_path}/jobs.db")
    maker.open()
    maker.close()
    assert store.exists()
    assert store.counts()["ready"] == 0
    store.close()


def test_a_file_that_is_made_is_told_of_once(tmp_path, caplog):
    caplog.set_level(logging.INFO, "shop")
    store = open_store(f"sqlite:///{tmp_path}/jobs.db", logger=logging.getLogger("shop"))
    assert caplog.messages == []
    for _ in range(2):
        store.open()
        store.close()
    assert caplog.messages == [f"sqlite:///{tmp_path}/jobs.db: made a new store"]


def test_what_no_other_process_can_open_has_no_url_for_it():
    assert open_store("memory:").shared_url is None
    url = "mongodb://user:secret@host:1/app?w=1"
    assert open_store(url).shared_url == url


def test_an_absolute_file(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/jobs.db")
    assert store.address == f"sqlite:///{tmp_path}/jobs.db"
    store.open()
    store.close()
    assert (tmp_path / "jobs.db").exists()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "memory:, sqlite:///relative.db"),
        ("jobs.db", "memory:, sqlite:///relative.db"),
        ("memory", "memory:"),
        ("redis://user:secret@host/0", "redis:"),
        ("sqlite:jobs.db", "sqlite:///relative.db"),
        ("sqlite://host/jobs.db", "sqlite:///relative.db"),
        ("sqlite:///", "the path of an SQLite file"),
        ("sqlite:///:memory:", "'memory:'"),
        ("sqlite:///jobs.db?sync=FULL", "synchronous, busy_timeout and mode for SQLite, got 'sync'"),
        ("sqlite:///jobs.db?synchronous=", "FULL"),
        ("sqlite:///jobs.db?synchronous=full;drop", "FULL"),
        ("sqlite:///jobs.db?mode=", "octal, such as 0660, got ''"),
        ("sqlite:///jobs.db?mode=rw", "octal, such as 0660, got 'rw'"),
        ("sqlite:///jobs.db?mode=0060", "lets the owner read and write, got 0060"),
        ("sqlite:///jobs.db?mode=4600", "0600 to 0777"),
        ("sqlite:///jobs.db?busy_timeout=soon", "seconds, got 'soon'"),
        ("sqlite:///jobs.db?busy_timeout=-1", "0 or more"),
        ("sqlite:///jobs.db?busy_timeout=inf", "0 or more"),
        ("sqlite:///jobs.db?busy_timeout=nan", "0 or more"),
    ],
)
def test_what_is_no_store_is_refused_by_name(url, says):
    with pytest.raises(ValueError, match="^store: ") as refused:
        open_store(url)
    assert says in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", [None, 7, b"memory:", ["memory:"]])
def test_what_is_no_text_is_refused(url):
    with pytest.raises(TypeError, match="store: expected a URL"):
        open_store(url)


def test_without_pymongo_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "kqueue.stores.mongo.store", raising=False)
    monkeypatch.setitem(sys.modules, "pymongo", None)
    with pytest.raises(StoreError, match=r"pip install 'kqueue\[mongo\]'"):
        open_store("mongodb://127.0.0.1:1/app")


def test_the_source_folder_is_no_package_stores():
    """A shop has a package of that name: ours must not be taken for it without a word."""
    tried = subprocess.run(
        [sys.executable, "-c", "import stores"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert tried.returncode == 1
    assert "ImportError: this is kqueue.stores" in tried.stderr


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////srv/a b%2F.db",
        "sqlite:////srv/100%25.db",
        "sqlite:////srv/what%3F.db",
        "sqlite:////srv/a#b@c&d=e.db",
        "mongodb://%2Frun%2Fmongodb-27017.sock/app",
        "mongodb://[::1]:27017/app",
        "mongodb://one,two:27018/app",
        "mongodb://one/a%2541",
    ],
)
def test_an_address_that_is_shown_leads_to_the_same_store(url: str) -> None:
    address = open_store(url).address
    assert open_store(address).address == address
    if url.startswith("sqlite"):
        assert address == (url if "%2F" not in url else url.replace("%2F", "/"))
    elif "," not in url and ":27017" not in url and "%2F" not in url:
        assert address == url.replace("one", "one:27017")
    else:
        assert address == url.replace("one,", "one:27017,")
