"""Where the worker's lines go."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kqueue.worker import logs
from tests.worker.works import Works


@contextmanager
def nobody_has_configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """The logger "kqueue". Within a test, since pytest configures the root before each."""
    logger = logging.getLogger("kqueue")
    level = logger.level
    with monkeypatch.context() as patch:
        for one in (logger, logging.getLogger()):
            patch.setattr(one, "handlers", [])
        yield logger
    logger.setLevel(level)


def test_lines_begin_with_time_level_and_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with nobody_has_configured(monkeypatch) as logger:
        logs.configure("warning")
        logger.info("not said")
        logging.getLogger("kqueue.worker").warning("said of %s", "it")
        assert logging.getLogger().handlers == []
    line = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING \d+ said of it\n"
    assert re.fullmatch(line, capsys.readouterr().err)


@pytest.mark.parametrize("name", [None, "kqueue"])
def test_an_app_that_has_configured_logging_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    handler = logging.NullHandler()
    with nobody_has_configured(monkeypatch) as logger:
        logging.getLogger(name).addHandler(handler)
        level = logger.level
        logs.configure("debug")
        assert logging.getLogger(name).handlers == [handler]
        assert logger.level == level


def test_a_worker_says_as_much_as_it_is_asked_to(works: Works) -> None:
    with works.worker("--log-level", "warning") as worker:
        (id,) = works.add("exit")
        works.await_line("WARNING")
        assert worker.stop() == 0
    assert works.runs() == {id: 1}
    assert "INFO" not in works.log.read_text()


def test_by_choice_it_tells_each_start_and_each_end(works: Works) -> None:
    (id,) = works.add("work")
    with works.worker("--log-jobs") as worker:
        works.await_line(f"INFO {worker.await_children(1)[0]} job {id} (t): was deleted after")
        assert worker.stop() == 0
    assert works.log.read_text().count(f"job {id} (t): starts, try 1, fence 1") == 1


def test_without_that_it_tells_of_no_job_that_goes_well(works: Works) -> None:
    (id,) = works.add("work")
    with works.worker() as worker:
        works.await_empty()
        assert worker.stop() == 0
    assert id not in works.log.read_text()


SILENT = """
import logging.config

from app import queue

logging.config.dictConfig({"version": 1, "root": {"level": "INFO"}})
"""


def test_that_the_app_has_silenced_it_is_said_once(works: Works) -> None:
    (works.folder / "silent.py").write_text(SILENT)
    works.add("work")
    with works.worker("--processes", "2", app="silent:queue") as worker:
        works.await_empty()
        assert worker.stop() == 0
    [line] = [one for one in works.log.read_text().splitlines() if "has silenced kqueue" in one]
    assert line.startswith("kqueue: the app's logging configuration has silenced kqueue")
    assert "disable_existing_loggers=False" in line
