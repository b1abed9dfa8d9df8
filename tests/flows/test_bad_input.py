"""Bad input is refused before a byte is sent or written."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kqueue import Filter, KQueue
from kqueue.model import tubes
from tests.closing import Closes

NAIVE = datetime(2026, 5, 1)


def test_an_option_that_is_not_there_is_named_with_those_that_are(untouched: KQueue) -> None:
    given: dict[str, Any] = {"prio": 1}
    for add, payload in ((untouched.add_job, 1), (untouched.add_jobs, [1])):
        with pytest.raises(TypeError, match=rf"^{add.__name__}\(\) .*'prio'; it takes priority, "):
            add("t", payload, **given)


@pytest.fixture
def untouched(tmp_path: Path) -> KQueue:
    """A queue that would leave a trace if it were opened."""
    return KQueue(store=f"sqlite:///{tmp_path}/none.db", broker="beanstalk://127.0.0.1:1")


@pytest.mark.parametrize(
    ("argument", "arguments", "options"),
    [
        ("type", ("", 1), {}),
        ("type", ("a\tb", 1), {}),
        ("type", ("a\r\ndelete 1", 1), {}),
        ("type", ("x" * 191, 1), {}),
        ("type", (5, 1), {}),
        ("priority", ("t", 1), {"priority": -1}),
        ("priority", ("t", 1), {"priority": 2**32}),
        ("priority", ("t", 1), {"priority": 1.5}),
        ("priority", ("t", 1), {"priority": True}),
        ("priority", ("t", 1), {"priority": "asap"}),
        ("delay", ("t", 1), {"delay": -1}),
        ("delay", ("t", 1), {"delay": math.nan}),
        ("delay", ("t", 1), {"delay": math.inf}),
        ("ttr", ("t", 1), {"ttr": 0}),
        ("ttr", ("t", 1), {"ttr": math.inf}),
        ("max_tries", ("t", 1), {"max_tries": 0}),
        ("max_tries", ("t", 1), {"max_tries": 1.0}),
        ("max_tries", ("t", 1), {"max_tries": True}),
        ("retry_delay", ("t", 1), {"retry_delay": -1}),
        ("retry_delay", ("t", 1), {"retry_delay": []}),
        ("retry_delay", ("t", 1), {"retry_delay": "soon"}),
        ("retry_delay", ("t", 1), {"retry_delay": lambda failures, error: 1}),
        ("payload", ("t", {1}), {}),
        ("payload", ("t", math.nan), {}),
        ("payload", ("t", {1: 2}), {}),
        ("payload", ("t", b"x" * (15 * 2**20 + 1)), {}),
    ],
)
def test_add(untouched: KQueue, tmp_path: Path, argument: str, arguments: Any, options: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^{argument}: "):
        untouched.add_job(*arguments, **options)
    with pytest.raises((ValueError, TypeError), match=rf"^{argument}: "):
        untouched.add_jobs(arguments[0], ["good", *arguments[1:]], **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda queue: queue.add_job("t", unique=""), "unique: 1 to 200 printable characters, got ''"),
        (lambda queue: queue.add_job("t", unique="x" * 201), "unique: 1 to 200"),
        (lambda queue: queue.add_job("t", unique="a\0"), "unique: 1 to 200"),
        (lambda queue: queue.add_job("t", unique=42), "unique: expected a str, got 42"),
        (lambda queue: queue.add_job("t", unique_for=5), "unique_for: only together with unique"),
        (lambda queue: queue.add_job("t", unique="k", unique_for=-1), "unique_for: a finite number, at least 0"),
        (lambda queue: queue.add_job("t", limit_key="\ud800"), "limit_key: 1 to 200"),
        (lambda queue: queue.add_jobs("t", [1], limit_key=7), "limit_key: expected a str"),
        (lambda queue: queue.options("t", ttr=0), "ttr: "),
        (lambda queue: queue.options("t", tttr=5), "options: no 'tttr'; did you mean 'ttr'"),
        (lambda queue: queue.add_handler("t", print, retry=3), "retry: expected a RetryPolicy"),
        (lambda queue: queue.add_jobs("t", "abc"), "payloads: expected a list"),
        (lambda queue: queue.run_jobs(count_limit=-1), "count_limit: at least 0"),
        (lambda queue: queue.run_jobs(count_limit=1.5), "count_limit: expected an integer"),
        (lambda queue: queue.run_jobs(time_limit_ms=-1), "time_limit_ms: a finite number, at least 0"),
        (lambda queue: queue.run_jobs(time_limit_ms=math.nan), "time_limit_ms: a finite number"),
        (lambda queue: queue.add_handler("t", "no function"), "handler of t: expected something to call"),
        (lambda queue: queue.handler("a\tb"), "type: "),
        (lambda queue: queue.add_handler("t", print, auto_renew=1), "auto_renew: expected True or False"),
        (lambda queue: queue.add_handler("t", print, auto_renew=True, max_runtime=0), "max_runtime: seconds, more"),
        (
            lambda queue: queue.add_handler("t", print, auto_renew=True, max_runtime="9"),
            "max_runtime: expected a n",
        ),
        (lambda queue: queue.add_handler("t", print, max_runtime=9), "max_runtime: only with auto_renew=True"),
        (lambda queue: queue.handler("t", max_runtime=9)(print), "max_runtime: only with auto_renew=True"),
        (lambda queue: queue.delete_job({"$ne": 1}), "id: "),
        (lambda queue: queue.get_job(None), "id: "),
        (lambda queue: queue.why("short"), "id: "),
        (
            lambda queue: queue.add_job("t", delay=timedelta(days=-1)),
            "delay: a finite number, at least 0, got -86400",
        ),
        (
            lambda queue: queue.add_job("t", delay=5, run_at=datetime.now(UTC)),
            "run_at: either it or delay, not both",
        ),
        (lambda queue: queue.add_job("t", run_at=NAIVE), "run_at: a datetime with a time zone, got"),
        (
            lambda queue: queue.add_job("t", run_at=datetime(1, 1, 1, tzinfo=UTC)),
            "run_at: a finite number, at least 0",
        ),
        (lambda queue: queue.add_job("t", run_at="soon"), "run_at: expected a number"),
        (lambda queue: queue.delete_dead(Filter(ended_since=NAIVE)), "ended_since: a datetime with a time zone"),
        (lambda queue: queue.retry_job("short", "why"), "id: "),
        (lambda queue: queue.retry_job("0" * 28, 7), "reason: "),
        (lambda queue: queue.retry_job("0" * 28, "why", delay=5), "delay: only for a job in hand"),
        (lambda queue: queue.renew_job("0" * 28), "job: expected the job that a handler was given"),
        (lambda queue: queue.unget_job(None), "job: expected"),
        (lambda queue: queue.counts("*"), "type: "),
        (lambda queue: queue.run_jobs(wait="no"), "wait: expected True or False"),
        (lambda queue: queue.add_handler("t", print, delete_on_success=1), "delete_on_success: expected True"),
        (lambda queue: queue.jobs(state="gone"), "state: one of delayed, ready, held, running, dead, done"),
        (lambda queue: queue.jobs(limit=0), "limit: at least 1"),
        (lambda queue: queue.jobs(after="x"), "id: "),
        (lambda queue: queue.purge_jobs(""), "type: "),
    ],
)
def test_other_calls(untouched: KQueue, tmp_path: Path, call: Any, match: str) -> None:
    with pytest.raises((ValueError, TypeError), match=match):
        call(untouched)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"store": "redis://127.0.0.1"}, "store: expected one of memory:, sqlite:"),
        ({"store": "sqlite:///a.db?sync=1"}, "store: .*got 'sync'"),
        ({"store": 7}, "store: expected a URL or a store"),
        ({"store": "memory:", "broker": "amqp://127.0.0.1"}, "broker: "),
        ({"store": "memory:", "broker": "beanstalk://127.0.0.1:99999"}, "broker: "),
        ({"store": "memory:", "broker": 7}, "broker: expected a URL or a broker"),
        ({"store": "memory:", "retry_delay": -1}, "retry_delay: "),
        ({"store": "memory:", "max_tries": 0}, "max_tries: "),
        ({"store": "memory:", "max_crashes": 0}, "max_crashes: "),
        ({"store": "memory:", "sweep_interval": 0}, "sweep_interval: "),
        ({"store": "memory:", "settle_ms": math.nan}, "settle_ms: "),
        ({"store": "memory:", "max_payload": -1}, "max_payload: "),
        ({"store": "memory:", "max_result": -1}, "max_result: "),
        ({"store": "memory:", "logger": "kqueue"}, "logger: expected a logging.Logger"),
        ({"store": "memory:", "prefix": "way too long a prefix"}, "prefix: at most 10"),
    ],
)
def test_options(options: Any, match: str) -> None:
    with pytest.raises((ValueError, TypeError), match=match):
        KQueue(**options)


def test_a_second_handler_for_a_type_is_refused() -> None:
    queue = KQueue(store="memory:")
    queue.add_handler("t", print)
    with pytest.raises(ValueError, match="t has a handler already"):
        queue.add_handler("t", print)


def test_bad_arguments_in_a_handler_leave_the_job_in_hand() -> None:
    queue = KQueue(store="memory:")

    @queue.handler("t")
    def handle(job: Any) -> None:
        for bad in (
            lambda: job.retry(7),
            lambda: job.retry("why", delay=-1),
            lambda: job.unget(priority="asap"),
            lambda: job.unget(delay=math.inf),
        ):
            with pytest.raises((ValueError, TypeError)):
                bad()
        job.delete()

    queue.add_job("t")
    assert queue.run_jobs().deleted == 1


def test_a_prefix_other_than_the_stores_is_refused(tmp_path: Path, closes: Closes) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    with KQueue(store=url, prefix="shop.") as first, KQueue(store=url) as second:
        assert first.prefix == second.prefix == tubes.beginning("shop.", first.store.identity())
    with pytest.raises(ValueError, match=r"prefix: .*begin with 'shop.', not 'other.'"):
        closes(KQueue(store=url, prefix="other.")).open()
