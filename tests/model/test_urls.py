"""No URL is shown with its password, whatever else is wrong with it, and whoever says it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kqueue import KQueue
from kqueue.brokers import open_broker
from kqueue.cli import main
from kqueue.config import configuration
from kqueue.model.errors import KQueueError
from kqueue.model.urls import showable, without_passwords
from kqueue.renewal.messages import Hello
from kqueue.stores import open_store
from kqueue.stores.mongo.server.link import read_url

Check: TypeAlias = Callable[[str, str, str], None]

#: Part of every password here.
SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory:", "memory:"),
        ("sqlite:///jobs.db", "sqlite:///jobs.db"),
        ("sqlite:////home/me@work/jobs.db?mode=0660", "sqlite:////home/me@work/jobs.db?mode=0660"),
        ("sqlite:///jobs.db?key=s3cr3t&synchronous=OFF", "sqlite:///jobs.db?key=***&synchronous=OFF"),
        ("beanstalk://127.0.0.1:11300", "beanstalk://127.0.0.1:11300"),
        ("beanstalk://[::1]:5/?timeout=2.5", "beanstalk://[::1]:5/?timeout=2.5"),
        ("beanstalk+unix:///run/b.sock", "beanstalk+unix:///run/b.sock"),
        ("beanstalk://bücher.example", "beanstalk://bücher.example"),
        ("127.0.0.1:11300", "127.0.0.1:11300"),
        ("mongodb://h1:1,h2:2/app?replicaSet=rs0", "mongodb://h1:1,h2:2/app?replicaSet=rs0"),
        ("amqp://u:s3cr3t@host", "amqp://u:***@host"),
        ("mongodb://u:s3cr3t@h1:1,h2/app?w=majority", "mongodb://u:***@h1:1,h2/app?w=majority"),
        ("amqp://host/x?password=s3cr3t&authToken=s3cr3t", "amqp://host/x?password=***&authToken=***"),
        ("redis://:s3cr3t@host", "redis://***@host"),
        ("amqp://s3cr3t@host", "amqp://***@host"),
        ("amqp://u:s3cr3t", "amqp://***"),
        ("u:s3cr3t@host/db", "***@host/db"),
        ("amqp://u:s3cr3t@host#s3cr3t", "amqp://u:***@host#***"),
        ("password=s3cr3t host=h", "***"),
    ],
)
def test_a_url_is_shown_as_far_as_it_is_no_secret(url: str, shown: str):
    assert showable(url) == shown


#: Wherever a password may be said, and however wrong the rest is.
CORPUS = [
    "amqp://u:s3cr3t@host",
    "AMQP://u:s3cr3t@host",
    "beanstalk://u:s3cr3t@127.0.0.1:11300",
    "beanstalk://:s3cr3t@127.0.0.1",
    "beanstalk://s3cr3t@127.0.0.1",
    "beanstalk://u:s3cr3t",
    "beanstalk://u:a/s3cr3t@host",
    "beanstalk://u:a?s3cr3t@host",
    "beanstalk://u:a#s3cr3t@host",
    "beanstalk://u:a@s3cr3t@host",
    "beanstalk://u:a s3cr3t b@host",
    "beanstalk://u:a's3cr3t\"b@host",
    "beanstalk://u:a[s3cr3t@host",
    "beanstalk://u:\u2100s3cr3t@host",  # no netloc may have this character, says the library, and quotes all of it
    "beanstalk://u:%73%33s3cr3t%40@host",
    "beanstalk://u%3As3cr3t%40host",
    "beanstalk://u:a\ns3cr3t@host",
    "beanstalk://host?password=s3cr3t",
    "beanstalk://host?s3cr3t",
    "beanstalk://host?timeout=1&authToken=s3cr3t",
    "beanstalk://host:11300#s3cr3t",
    "beanstalk+unix://u:s3cr3t@/x",
    "//u:s3cr3t@host",
    "amqp:/u:s3cr3t@host",
    "amqp:u:s3cr3t@host",
    "u:s3cr3t@host",
    "jdbc:mysql://host/db?password=s3cr3t",
    "host=h password=s3cr3t",
    "sqlite://u:s3cr3t@host/jobs.db",
    "sqlite:///jobs.db?key=s3cr3t",
    "mongodb://u:s3cr3t@host",
    "mongodb://u:s3cr3t@h1:1,h2:x/db",
    "mongodb://u:s3cr3t@h1,u2:s3cr3t@h2/db",
    "mongodb://u:a/s3cr3t@host/db",
    "mongodb://u:a:s3cr3t@host/db",
    "mongodb://u:a@s3cr3t@host/db",
    "mongodb://u:%s3cr3t@host/db",
    "mongodb://u:s3cr3t@host/db?w=0",
    "mongodb://u:s3cr3t@host/db?password=s3cr3t",
    "mongodb://u:p@host/db?authMechanismProperties=AWS_SESSION_TOKEN:s3cr3t",
    "mongodb+srv://u:s3cr3t@h1,h2/db",
]
#: Commands that fail at such a store or broker, or show it.
COMMANDS = ["config", "config --json", "status --json", "doctor", "add t", "sweep --dry-run", "list"]


@pytest.mark.parametrize("url", CORPUS)
def test_no_error_of_a_store_or_a_broker_has_its_password(url: str):
    for make in (
        open_broker,
        open_store,
        read_url,
        KQueue,
        lambda url: KQueue("memory:", url),
        lambda url: KQueue(url.encode()),
        lambda url: KQueue("memory:", [url]),
    ):
        try:
            made = make(url)
        except (ValueError, TypeError, KQueueError) as error:
            assert SECRET not in str(error)
        else:
            assert SECRET not in repr(made)
    assert SECRET not in repr(Hello(1, 2, url))


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """That a command says no password that it is given by an option, the environment or the file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kqueue.stores.mongo.server.link._DEFAULTS", {"serverSelectionTimeoutMS": 1})
    monkeypatch.setenv("KQUEUE_STORE", "sqlite:///jobs.db")
    file = tmp_path / "kqueue.toml"

    def say(*args: str) -> None:
        with pytest.raises(SystemExit):
            main.main(args)
        said = "".join(capsys.readouterr())
        assert SECRET not in said, (args, said)

    def check(url: str, key: str, command: str) -> None:
        if "mongodb" in url and key == "store":
            command = "config"  # another one would look for the server, and wait for it
        say(*command.split(), f"--{key}", url)
        with monkeypatch.context() as patch:
            patch.setenv(f"KQUEUE_{key.upper()}", url)
            say(*command.split())
            patch.delenv(f"KQUEUE_{key.upper()}")
            file.write_text(f"{key} = {json.dumps(url)}\n")
            say(*command.split())
        # And where none belongs.
        file.write_text(f"worker = {json.dumps(url)}\n")
        say("config")
        file.unlink()
        if "\n" not in url and ("://" in url or "@" in url):
            say("config", "--config", url)
            say("config", url)
            say("status", "--app", url)

    return check


@pytest.mark.parametrize("number", range(len(CORPUS)))
def test_no_command_shows_a_password(check: Check, number: int):
    check(CORPUS[number], ["store", "broker"][number % 2], COMMANDS[number % len(COMMANDS)])


@pytest.mark.proof
@pytest.mark.parametrize("url", CORPUS)
def test_none_of_all_commands_shows_any_password(check: Check, url: str):
    for key in ("store", "broker"):
        for command in COMMANDS:
            check(url, key, command)


def test_what_is_configured_shows_no_password_either():
    url = "mongodb://u:s3cr3t@host/app"
    read = configuration.load(options={"store": url}, environment={})
    assert SECRET not in repr(read)
    assert read.setting("store").value == url
    assert SECRET not in repr(read_url(url))


# What stands in a password beside the secret, and around the URL.
odd = st.text("ab:/@?#[]% '\"&=;.,-+\\é\u2100", max_size=8)
passwords = st.builds("{}s3cr3t{}".format, odd, odd)
schemes = st.sampled_from(["amqp", "beanstalk", "mongodb", "mongodb+srv", "redis+sentinel", "SQLite", "x"])


@given(schemes, passwords)
def test_no_password_before_a_host_is_shown(scheme: str, password: str):
    assert SECRET not in showable(f"u:{password}@host")
    for rest in ("host:1/db", "h1,h2/db?w=1"):
        url = f"{scheme}://u:{password}@{rest}"
        assert SECRET not in showable(url)
        assert SECRET not in without_passwords(f"config: cannot read {url}: no such file")
        assert SECRET not in without_passwords(f"no such command {url!r}.")


@settings(max_examples=30)
@given(schemes, passwords)
def test_no_error_has_any_such_password(scheme: str, password: str):
    for make in (open_broker, open_store):
        try:
            make(f"{scheme}://u:{password}@host:1/db")
        except (ValueError, KQueueError) as error:
            assert SECRET not in str(error)


@given(schemes, st.sampled_from(["password", "authToken", "sslkey", "x"]), st.text("ab:/?%.,-+é", max_size=8))
def test_no_password_in_a_query_is_shown(scheme: str, name: str, around: str):
    for url in (f"{scheme}://host/db?{name}={around}s3cr3t{around}", f"{scheme}://h?w=1&{name}={around}s3cr3t"):
        assert SECRET not in showable(url)
        assert SECRET not in without_passwords(f"cannot read {url!r}: no such file")


def test_a_text_without_a_password_stays_as_it_is():
    for text in (
        "beanstalk://127.0.0.1:11300: cannot connect (refused); start beanstalkd there",
        "sqlite:////home/me@work/jobs.db: locked by another process",
        "no such command 'frobnicate'. See: kqueue --help",
        "expected one of memory:, sqlite:///relative.db, sqlite:////absolute.db, mongodb://host:port/db; got ''",
    ):
        assert without_passwords(text).replace("mongodb://***", "mongodb://host:port/db") == text
