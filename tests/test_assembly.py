"""The parts of a queue: that the front and the assembly take the same, and that one clock reaches all of them."""

import inspect
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kqueue import JobInHand, KQueue
from kqueue.assembly import assemble
from kqueue.model.handlers import HandlerOptions
from kqueue.stores.memory.store import MemoryStore
from kqueue.system.clock import ManualClock
from tests.closing import Closes

#: UTC, of some day.
NOON = 1_699_963_200.0


def test_a_queue_takes_what_the_assembly_takes_but_for_the_clock() -> None:
    of_queue = inspect.signature(KQueue).parameters
    of_assembly = dict(inspect.signature(assemble).parameters)
    assert of_assembly.pop("clock").default is None
    assert list(of_queue.values()) == list(of_assembly.values())


def test_a_queue_lives_by_the_clock_of_its_parts(closes: Closes) -> None:
    """Its leases, its delays, its schedules and its loops' limits: none needs a second of the machine's."""
    clock = ManualClock(NOON)
    queue = closes(KQueue.from_parts(assemble(MemoryStore(clock), clock=clock)))
    ran: list[object] = []

    @queue.handler("t", delete_on_success=True)
    def handle(job: JobInHand) -> None:
        ran.append(job.payload)
        clock.advance(3600)

    queue.add_cron("0 0 * * *", "t", "cron", missed="all")
    queue.add_jobs("t", ["first", "second"], ttr=7200)
    queue.add_job("t", "delayed", delay=86_400)
    assert queue.run_jobs(time_limit_ms=1000).count == 1
    assert queue.run_jobs(time_limit_ms=1000).count == 1
    assert ran == ["first", "second"]
    clock.advance(86_400)
    queue.run_jobs()
    assert sorted(map(str, ran[2:])) == ["cron", "delayed"]


def test_isolation_ends_by_the_clock_of_the_parts() -> None:
    clock = ManualClock()
    isolation = assemble("memory:", clock=clock).registry.isolation
    with isolation.window(), isolation.aside(0) as alone:
        assert alone
        assert not isolation.has_expired()
        clock.advance(3600)
        assert isolation.has_expired()


def test_a_queue_closes_a_store_that_was_used_before_the_queue_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    queue = KQueue(f"sqlite:///{path}")
    assert queue.store.get(["a job's id"]) == []
    assert str(path) in open_files()
    queue.close()
    assert str(path) not in open_files()


def open_files() -> set[str]:
    """What this process has open."""
    paths = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            paths.add(os.readlink(f"/proc/self/fd/{name}"))
    return paths


@pytest.mark.parametrize("call", ["add_handler", "handler", "cron"])
def test_an_option_that_no_handler_has_is_refused_by_name(call: str) -> None:
    queue = KQueue("memory:")
    arguments: dict[str, tuple[Any, ...]] = {"add_handler": ("t", print), "handler": ("t",), "cron": ("* * * * *",)}
    with pytest.raises(TypeError, match=rf"{call}\(\) got an unexpected keyword argument 'ttl'; .*takes .*retry"):
        getattr(queue, call)(*arguments[call], ttl=3)
    assert queue.types() == []


def test_the_options_of_a_handler_are_all_read(closes: Closes) -> None:
    parts = assemble("memory:")
    queue = closes(KQueue.from_parts(parts))

    async def handle(job: JobInHand) -> None:
        """Never called."""

    given: HandlerOptions = {"delete_on_success": True, "auto_renew": True, "max_runtime": 5, "concurrency": 3}
    queue.handler("t", **given)(handle)
    handler = parts.handlers.all()["t"]
    assert {name: getattr(handler, name) for name in given} == given
    assert handler.is_async
