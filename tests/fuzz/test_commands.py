"""Whatever a command is given, it ends by itself: done, done in part, or with one line that says what is wrong."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import strategies as st

from kqueue import KQueue, KQueueError
from kqueue.cli import run as run_command
from kqueue.cli.main import COMMANDS, cli
from tests.fuzz.drawing import FEW, MANY, fuzz
from tests.fuzz.values import text
from tests.shop import APP, NO_JOB

#: What is not run here, and why.
LEFT_OUT = {
    "demo": "runs the main job",
    "worker": "stays: its options are those of the configuration, and drawn there",
}
#: How an error names what it is about: ``--ttr: ...``, ``payload 1: ...``, ``kqueue.toml: ...``, an address.
NAMED = re.compile(r"[\w./:\\-]+( \d+)?(\[.*\])*(, line \d+)?: ", re.DOTALL)
#: What an operator may well type for any option.
_TYPED = [
    *(
        "mail",
        "dead",
        "ready",
        NO_JOB,
        "1",
        "0",
        "90",
        "10m",
        "2h",
        "1.5",
        "high",
        "2026-05-01T12:00",
        "2026-05-01",
    ),
    *("key", "null", '"x"', '{"a": 1}', "[1]"),
]
#: And what nobody should.
_ODD = [
    *("", " ", "-1", "--", "-", "nan", "inf", "-inf", "1e400", "9" * 30, "9" * 5_000, str(2**63), str(2**63 - 1)),
    *("0001-01-01", "9999-12-31T23:59:59", "0001-01-01T00:00+23:00", "99999999999d", "1" * 400 + "d", "25:00"),
    *(
        "*",
        "/",
        "..",
        "a\nb",
        "\x1b[2J",
        "Łódź",
        "\udc80",
        "sqlite:///",
        "memory:",
        "NaN",
        "[" * 1_000,
        '"\\ud800"',
    ),
]


def _is_handed_on(typed: str) -> bool:
    """Whether a system can hand it to a program."""
    try:
        return b"\0" not in os.fsencode(typed)
    except UnicodeEncodeError:
        return False


_mostly = st.one_of(st.sampled_from(_TYPED), st.sampled_from(_TYPED), st.sampled_from(_ODD), text)
value = _mostly.filter(_is_handed_on)
#: Options that say where jobs are, what is read and how long: drawn by hand.
_FIXED = {"store", "broker", "app", "config", "wait", "every", "time_limit_ms", "help", "lines"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_command, "step_aside", lambda: None)  # it would fork
    for name in list(os.environ):
        if name.startswith("KQUEUE_"):
            monkeypatch.delenv(name)
    (tmp_path / "fuzzshop.py").write_text(APP)
    with KQueue("sqlite:///jobs.db") as queue:
        queue.add_jobs("mail", range(3))
    yield tmp_path


def arguments_of(command: click.Command) -> st.SearchStrategy[list[str]]:
    """Some of its options and arguments, in any number."""
    options = [one for one in command.params if isinstance(one, click.Option) and one.name not in _FIXED]
    flags = [st.just([one.opts[0]]) for one in options if one.is_flag]
    valued = [value.map(lambda typed, name=one.opts[0]: [f"{name}={typed}"]) for one in options if not one.is_flag]
    loose = value.map(lambda typed: [typed])
    each = st.one_of(*valued, *flags, loose) if options else loose
    return st.lists(each, max_size=5).map(lambda parts: [word for part in parts for word in part])


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.proof)])
@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - LEFT_OUT.keys()))
def test_arguments_of_commands(name: str, examples: int, folder: Path) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    where = [] if name in {"run", "config"} else ["--store=sqlite:///jobs.db"]
    where += ["--app=fuzzshop:queue"] if name == "run" else []

    def check(arguments: list[str]) -> None:
        done = CliRunner().invoke(cli, [name, *where, *arguments], input="")
        told = f"kqueue {name} {arguments!r:.300}: {done.exception!r:.300}"
        if isinstance(done.exception, SystemExit) or done.exception is None:
            assert done.exit_code in {0, 1, 2}, told
        elif not isinstance(done.exception, KQueueError | click.ClickException | click.Abort | OSError):
            assert isinstance(done.exception, ValueError | TypeError), told
            assert NAMED.match(str(done.exception)), told

    fuzz(examples, arguments_of(command), check)
