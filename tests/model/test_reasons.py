"""Why a run failed, as operators read it."""

import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kqueue.model.reasons import MAX_TRACEBACK, describe, own_line, reason_text, traceback_of


@pytest.fixture
def make_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a module from its source, in a folder of the test's own."""

    def make(name: str, source: str, folder: str = ".") -> ModuleType:
        path = tmp_path / folder / f"{name.replace('.', '_')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source, str(path), "exec"), vars(module))
        return module

    return make


def raised_by(call: Any) -> BaseException:
    try:
        call()
    except BaseException as error:
        # The first frame is this function's, which stands for the engine here.
        return error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None)
    raise AssertionError


def test_a_reason_names_the_class_what_it_says_and_the_line(make_module: Any) -> None:
    shop = make_module("shop.jobs", "def fail():\n    raise ValueError('no such address')\n")
    assert describe(raised_by(shop.fail)) == "ValueError: no such address (shop_jobs.py:2)"


def test_the_line_is_the_last_one_of_the_users_own(make_module: Any) -> None:
    source = "import {0}\ndef {1}():\n    {2}\n"
    make_module("driver", source.format("json", "get", "json.loads('{')"), "lib/site-packages")
    make_module("helper", source.format("driver", "look", "driver.get()"))
    jobs = make_module("jobs", source.format("helper", "handle", "helper.look()"))
    assert own_line(raised_by(jobs.handle)) == "helper.py:3"


def test_a_handler_that_was_installed_is_the_users_own_too(make_module: Any) -> None:
    make_module("driver", "def get():\n    1 / 0\n", "lib/site-packages")
    make_module("shop.db", "import driver\ndef look():\n    driver.get()\n", "lib/site-packages")
    source = "import sys\ndef handle():\n    sys.modules['shop.db'].look()\n"
    jobs = make_module("shop.jobs", source, "lib/site-packages")
    assert own_line(raised_by(jobs.handle)) == "shop_db.py:3"


def test_without_a_line_of_the_users_own_there_is_none() -> None:
    assert own_line(ValueError("never raised")) is None
    assert own_line(raised_by(partial(json.loads, "{"))) is None
    names: dict[str, Any] = {"__name__": "typed"}
    exec(compile("def fail(): raise KeyError(1)", "<string>", "exec"), names)
    assert describe(raised_by(names["fail"])) == "KeyError: 1"


def test_a_long_reason_keeps_its_line(make_module: Any) -> None:
    shop = make_module("shop", "def fail():\n    raise ValueError('x' * 100000)\n")
    reason = describe(raised_by(shop.fail))
    assert len(reason) == 1000
    assert reason.endswith("x (shop.py:2)")


def test_a_reason_is_cut_and_cleaned() -> None:
    assert reason_text("x" * 5000) == "x" * 1000
    assert reason_text("a\ud800b") == r"a\ud800b"


def test_a_traceback_begins_with_the_users_own_code(make_module: Any) -> None:
    shop = make_module("shop.jobs", "def fail():\n    raise ValueError('no such address')\n")

    def run() -> None:
        shop.fail()

    error = raised_by(run)
    told = traceback_of(error)
    assert told is not None
    assert told.splitlines()[0] == "Traceback (most recent call last):"
    assert told.splitlines()[-2:] == ["    raise ValueError('no such address')", "ValueError: no such address"]


def test_a_long_traceback_keeps_its_beginning_and_its_end() -> None:
    def fail() -> None:
        raise ValueError("\n".join(f"line {number} ☃" for number in range(10_000)))

    told = traceback_of(raised_by(fail))
    assert told is not None
    assert len(told.encode()) <= MAX_TRACEBACK
    assert told.startswith("Traceback (most recent call last):\n")
    assert told.endswith("\nline 9999 ☃")
    (gap,) = [line for line in told.splitlines() if " bytes are left out" in line]
    assert all(line.endswith(" ☃") for line in told.splitlines()[-50:])
    assert gap.startswith("  ... ")


def test_a_traceback_of_one_long_line_is_bounded_too() -> None:
    def fail() -> None:
        raise ValueError("☃" * 100_000)

    told = traceback_of(raised_by(fail))
    assert told is not None
    assert len(told.encode()) <= MAX_TRACEBACK


@pytest.mark.parametrize("text", ["file \udc80 name", "NUL \0", "\x1b[2J"])
def test_a_traceback_can_be_stored_whatever_it_quotes(text: str) -> None:
    def fail() -> None:
        raise ValueError(text)

    told = traceback_of(raised_by(fail))
    assert told is not None
    assert told.encode()


def test_an_error_that_cannot_be_told_has_no_traceback() -> None:
    class Odd(Exception):
        @property
        def __notes__(self) -> list[str]:  # type: ignore[override]
            raise RuntimeError

    told = traceback_of(Odd())
    assert told is None or "Odd" in told
