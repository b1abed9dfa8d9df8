"""What is logged: a record for each failure, with the job's id, type and try; no payload that nobody asked for."""

import gc
import logging
import re
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kqueue import Died, Event, JobInHand, KQueue, Retried
from tests.beanstalkd import Beanstalkd
from tests.closing import Closes
from tests.flows.conftest import MakeQueue

SECRET = "swordfish"
FIELDS = {"job_id", "job_type", "job_try"}


class Renewer(logging.Handler):
    """Keeps all records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records(caplog: Any) -> Iterator[list[logging.LogRecord]]:
    """All records of KQueue's, from DEBUG on."""
    renewer, logger = Renewer(), logging.getLogger("kqueue")
    logger.addHandler(renewer)
    with caplog.at_level(logging.DEBUG, logger="kqueue"):
        yield renewer.records
    logger.removeHandler(renewer)


def about_jobs(records: list[logging.LogRecord], level: int = logging.DEBUG) -> list[logging.LogRecord]:
    return [record for record in records if hasattr(record, "job_id") and record.levelno >= level]


def fields(record: Any) -> tuple[str, str, int]:
    return record.job_id, record.job_type, record.job_try


def fail(job: JobInHand) -> None:
    raise OSError("disk on fire")


def test_a_failure_is_one_warning_and_a_death_is_one_error(
    make_queue: MakeQueue, records: list[logging.LogRecord]
) -> None:
    queue = make_queue(retry_delay=0, max_tries=2)
    queue.add_handler("resize", fail)
    job_id = queue.add_job("resize")
    queue.run_jobs()
    warning, error = about_jobs(records, logging.INFO)
    assert (warning.levelno, error.levelno) == (logging.WARNING, logging.ERROR)
    reason = "OSError: disk on fire (test_logs.py:"
    assert warning.getMessage().startswith(f"job {job_id} (resize): try 1 failed, the next is in 0 s: {reason}")
    assert error.getMessage().startswith(f"job {job_id} (resize): try 2 failed, it is dead: {reason}")
    assert (fields(warning), fields(error)) == ((job_id, "resize", 1), (job_id, "resize", 2))
    assert warning.name == error.name == "kqueue"


@pytest.mark.parametrize("is_heard", [False, True], ids=["unheard", "heard"])
def test_what_was_raised_goes_with_the_record_and_the_event_and_is_not_kept(
    make_queue: MakeQueue, is_heard: bool
) -> None:
    """Neither are the frames, and what the handler had in hand."""
    logger, kept = logging.Logger("pytest keeps the records of others", logging.WARNING), Renewer()
    logger.addHandler(kept)
    queue = make_queue(retry_delay=0, max_tries=2, logger=logger)
    in_hand: list[weakref.ref[Renewer]] = []
    events: list[Event] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        large = Renewer()
        in_hand.append(weakref.ref(large))
        raise OSError("disk on fire")

    if is_heard:
        queue.subscribe(events.append)
    queue.add_job("t")
    queue.run_jobs()
    raised: list[Any] = [(record.levelname, record.exc_info) for record in about_jobs(kept.records)]
    assert [level for level, _ in raised] == ["WARNING", "ERROR"]
    for _, (kind, error, traceback) in raised:
        assert (kind, str(error)) == (OSError, "disk on fire")
        assert traceback.tb_next.tb_frame.f_code.co_name == "handle"
    ends = [event for event in events if isinstance(event, Retried | Died)]
    assert [repr(event.exception) for event in ends] == ["OSError('disk on fire')"] * (2 if is_heard else 0)
    kept.records.clear()
    del raised, ends, kind, error, traceback
    events.clear()
    gc.collect()
    assert [one() for one in in_hand] == [None, None]


@pytest.mark.parametrize("text", ["\ud800", "plain"])
def test_a_text_that_no_file_takes_costs_the_traceback_and_not_the_record(
    make_queue: MakeQueue, tmp_path: Path, text: str
) -> None:
    log, logger = tmp_path / "log", logging.Logger("to a file")
    handler = logging.FileHandler(log, encoding="utf-8")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    queue = make_queue(logger=logger)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        raise ValueError(text)

    queue.add_job("t")
    queue.run_jobs()
    handler.close()
    written = log.read_text(encoding="utf-8")
    assert "try 1 failed" in written
    assert ("Traceback" in written) == (text == "plain")


def test_starts_ends_and_tracebacks_are_told_at_debug(
    make_queue: MakeQueue, records: list[logging.LogRecord]
) -> None:
    queue = make_queue(retry_delay=600)
    queue.add_handler("good", JobInHand.delete)
    queue.add_handler("bad", fail)
    good, bad = queue.add_job("good", priority=1), queue.add_job("bad", priority=2)
    queue.run_jobs()
    told = [record for record in about_jobs(records) if record.levelno == logging.DEBUG]
    texts = [(record.job_id, record.getMessage().split(": ", 1)[1].split(" after")[0]) for record in told]  # type: ignore[attr-defined]
    assert texts == [
        (good, "starts, try 1, fence 1"),
        (good, "was deleted"),
        (bad, "starts, try 1, fence 1"),
        (bad, "try 1 raised OSError"),
        (bad, "was retried"),
    ]
    raised = told[3]
    assert raised.exc_info is not None
    assert "disk on fire" in logging.Formatter().formatException(raised.exc_info)
    assert "in fail" in logging.Formatter().formatException(raised.exc_info)


def test_an_exception_that_changes_nothing_any_more_is_told_too(
    queue: KQueue, records: list[logging.LogRecord]
) -> None:
    """What the handler settled itself wins, and nothing else would ever say that it raised."""

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        job.delete()
        raise OSError("after the end")

    queue.add_job("t")
    assert queue.run_jobs().deleted == 1
    assert any(record.exc_info and "after the end" in str(record.exc_info[1]) for record in about_jobs(records))


def test_above_debug_a_job_that_is_done_is_no_record(queue: KQueue, caplog: Any) -> None:
    queue.add_handler("t", JobInHand.delete)
    queue.add_jobs("t", range(50))
    with caplog.at_level(logging.INFO, logger="kqueue"):
        queue.run_jobs()
    assert about_jobs(caplog.records) == []


def test_a_lost_lease_is_a_warning_about_its_job(queue: KQueue, records: list[logging.LogRecord]) -> None:
    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        queue.store.delete([job.id])
        job.delete()

    job_id = queue.add_job("t")
    queue.run_jobs()
    (warning,) = about_jobs(records, logging.INFO)
    assert warning.levelno == logging.WARNING
    assert fields(warning) == (job_id, "t", 1)
    assert "the lease with fence 1 was lost, so that it was deleted changed nothing" in warning.getMessage()


def test_a_failure_is_one_line_whatever_the_exception_says(queue: KQueue, caplog: Any) -> None:
    queue.add_handler("t", lambda job: job.retry("one\ntwo\r\n\x1b[31mthree\u2028Grüße"))
    queue.add_job("t")
    queue.run_jobs()
    (record,) = about_jobs(caplog.records)
    assert record.getMessage().endswith(r" s: one\ntwo\r\n\x1b[31mthree\u2028Grüße")
    assert len(record.getMessage().splitlines()) == 1


def test_ten_failures_are_ten_lines(queue: KQueue, caplog: Any) -> None:
    queue.add_handler("t", fail)
    ids = queue.add_jobs("t", range(10))
    queue.run_jobs()
    assert sorted(record.job_id for record in about_jobs(caplog.records)) == sorted(ids)  # type: ignore[attr-defined]


@pytest.mark.parametrize("level", [logging.ERROR, logging.CRITICAL])
def test_a_logger_that_does_not_want_them_is_not_asked_for_each(
    queue: KQueue, monkeypatch: pytest.MonkeyPatch, caplog: Any, level: int
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(logging.getLogger("kqueue"), "log", lambda *args, **more: calls.append(args))
    queue.add_handler("t", fail)
    queue.add_jobs("t", range(20))
    with caplog.at_level(level, logger="kqueue"):
        assert queue.run_jobs().retried == 20
    assert calls == []


def test_another_logger_may_be_given(make_queue: MakeQueue, caplog: Any) -> None:
    queue = make_queue(logger=logging.getLogger("shop.jobs"))
    queue.add_handler("t", fail)
    queue.add_job("t")
    queue.run_jobs()
    assert [record.name for record in about_jobs(caplog.records)] == ["shop.jobs"]


def test_no_field_is_one_that_a_record_has_already() -> None:
    plain = logging.LogRecord("n", logging.INFO, "p", 1, "m", (), None)
    assert not {*FIELDS, "job_payload"} & {*vars(plain), "message", "asctime"}


# -- payloads -----------------------------------------------------------------------------------------------


def everything_that_is_logged(queue: KQueue) -> None:
    """Jobs that are done, fail, die, go back, lose their lease, are put again; an observer that raises."""

    def refuse(event: Event) -> None:
        raise ValueError("out of order")

    end = queue.subscribe(refuse)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        what = job.payload["do"] if isinstance(job.payload, dict) else "fail"
        if what == "lose":
            queue.store.delete([job.id])
        if what in {"fail", "lose"}:
            raise OSError("no disk")
        if what == "unget":
            job.unget(delay=600)
        if what == "delete":
            job.delete()

    for what in ("delete", "fail", "unget", "lose", "nothing"):
        queue.add_job("t", {"do": what, "password": SECRET})
    queue.add_job("t", SECRET.encode())
    queue.run_jobs()
    queue.sweep()
    end()


@pytest.mark.parametrize("max_tries", [1, None])
def test_no_record_has_a_payload_in_it(
    make_queue: MakeQueue, records: list[logging.LogRecord], max_tries: int | None
) -> None:
    everything_that_is_logged(make_queue(max_tries=max_tries))
    assert len(about_jobs(records)) > 15
    assert any(record.levelno == logging.ERROR for record in records)
    for record in records:
        assert SECRET not in repr(vars(record))
        assert SECRET not in logging.Formatter().format(record)


def test_no_record_of_an_outage_has_a_payload_in_it(
    tmp_path: Path, beanstalkd: Beanstalkd, records: list[logging.LogRecord], closes: Closes
) -> None:
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db", beanstalkd.url))
    queue.add_job("t", SECRET)
    beanstalkd.kill()
    queue.add_jobs("t", [SECRET] * 3)
    queue.add_job("t", SECRET)  # known to have no pointer, so the next sweep puts it
    queue.add_handler("t", JobInHand.delete)
    queue.run_jobs(wait=True, time_limit_ms=50)
    beanstalkd.restart()
    queue.sweep()
    assert {record.levelname for record in records} >= {"WARNING", "INFO"}
    assert not any(SECRET in repr(vars(record)) for record in records)


def test_payloads_are_logged_where_that_is_asked_for(make_queue: MakeQueue, caplog: Any) -> None:
    queue = make_queue(log_payloads=True)
    queue.add_handler("t", fail)
    queue.add_job("t", {"path": "Grüße.png"})
    queue.add_job("t", b"\x00raw")
    queue.add_job("t", "x" * 5000)
    queue.run_jobs()
    shown = {record.job_payload for record in about_jobs(caplog.records)}  # type: ignore[attr-defined]
    assert '{"path":"Grüße.png"}' in shown
    assert r"b'\x00raw'" in shown
    assert sorted(len(one) for one in shown)[-1] == 1000
    for record in about_jobs(caplog.records):
        assert record.getMessage().endswith(f"; payload {record.job_payload}")  # type: ignore[attr-defined]


def test_the_option_is_a_flag() -> None:
    with pytest.raises(TypeError, match="log_payloads: expected True or False, got 1"):
        KQueue("memory:", log_payloads=1)  # type: ignore[arg-type]


# -- whose logging it is ------------------------------------------------------------------------------------

#: A program that says nothing about logging, and prints what KQueue made of it.
PROGRAM = """
import logging

root = logging.getLogger()
before = dict(vars(root), handlers=list(root.handlers), filters=list(root.filters))
from kqueue import KQueue

queue = KQueue("memory:")
queue.add_handler("t", lambda job: 1 / 0)
queue.subscribe(print_nothing := lambda event: None)
queue.add_job("t", "payload")
queue.run_jobs()
queue.sweep()
queue.close()
vars(root).pop("_cache"), before.pop("_cache")
assert vars(root) == before, (vars(root), before)
names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "kqueue"]
for logger in map(logging.getLogger, names):
    assert (logger.handlers, logger.level, logger.propagate, logger.disabled) == ([], 0, True, False)
print("untouched")
"""


def test_the_root_logger_is_untouched_and_an_unconfigured_program_sees_failures_on_stderr() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "untouched\n"), done.stderr
    first, *_, last = done.stderr.splitlines()
    assert re.search(r"\(t\): try 1 failed, the next is in \d+ s: ZeroDivisionError: division by zero", first)
    assert last == "ZeroDivisionError: division by zero"
