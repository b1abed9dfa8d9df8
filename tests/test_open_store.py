"""From a URL to a store."""

import subprocess
import sys
from pathlib import Path

import pytest

from kqueue.errors import StoreError
from kqueue.stores import MemoryStore, SqliteStore, open_store, shared_url

ROOT = Path(__file__).parents[1]


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
    here, shared = open_store(url).address, shared_url(url)
    assert shared is not None
    monkeypatch.chdir("/")
    assert open_store(shared).address == here
    assert shared.partition("?")[2] == url.partition("?")[2]


def test_what_no_other_process_can_open_has_no_url_for_it():
    assert shared_url("memory:") is None
    assert shared_url("mongodb://host:1/app?w=1") == "mongodb://host:1/app?w=1"


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
        ("sqlite:///jobs.db?sync=FULL", "synchronous and busy_timeout for SQLite, got 'sync'"),
        ("sqlite:///jobs.db?synchronous=", "FULL"),
        ("sqlite:///jobs.db?synchronous=full;drop", "FULL"),
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
    monkeypatch.delitem(sys.modules, "kqueue.stores.mongo", raising=False)
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
