"""However many types have jobs, one sweep looks at a part of them, and each is come to. Counted are calls of the
store, commands of the tube, and types; never time.
"""

import math
from collections import Counter
from typing import Any

import pytest

from kqueue import KQueue
from kqueue.contracts.broker import Pointer
from kqueue.contracts.rules import GRACE_S
from kqueue.contracts.store import JobStore
from kqueue.model.job import Row, State
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.mint import IdMint
from kqueue.upkeep.sweep import PAGE_TYPES, PART_S, PART_TYPES, PART_WORK_S, Sweep
from tests.recovery.conftest import INTERVAL_S, Site
from tests.recovery.steps import watched

MINT = IdMint()
#: The parts of a round in the tests that do not count to a hundred thousand.
SMALL_PART = 2 * PAGE_TYPES
#: Types of the longest whole round. beanstalkd finds a tube by walking the list of all that there are, so a round
#: takes it time by the square of the types: of 100,000 it took 4 minutes of a processor for the first 45,000. That
#: a part costs no more beside a hundred thousand types is counted on a part.
MOST_TUBES = 20_000


@pytest.fixture(autouse=True)
def the_machine_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """No part ends for the time that it takes."""
    monkeypatch.setattr("kqueue.upkeep.sweep.PART_WORK_S", math.inf)


class Counted:
    """A store that counts the calls made of it."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        if not callable(found) or name == "now":
            return found

        def call(*args: Any) -> Any:
            self.calls[name] += 1
            return found(*args)

        return call


def names(types: int) -> list[str]:
    return [f"type-{number:06}" for number in range(types)]


def fill(site: Site, types: int, lost: bool = True) -> KQueue:
    """A job of each type, whose pointer is lost, or stands in its tube."""
    queue = site.queue()
    queue.open()
    now = site.clock.time()
    ids = MINT.make(types)
    rows = [
        Row(id, type, b"1", "json", 100, State.READY, 0.0, now, 60.0, created_at=now, put_at=now)
        for id, type in zip(ids, names(types), strict=True)
    ]
    for first in range(0, types, 5000):
        lot = rows[first : first + 5000]
        queue.store.add(lot)
        if not lost:
            queue.broker.put([(Pointer(row.type, 100, now, (row.id,)), 0.0) for row in lot])
    site.clock.advance(GRACE_S)
    return queue


def next_part(queue: KQueue) -> Sweep | None:
    queue.open()
    part = queue._parts.sweeper.begin_if_due()
    while part is not None and part.step():
        pass
    return part


def looks(site: Site) -> int:
    with site.server.client() as client:
        return int(client.stats()["cmd-peek-ready"])


def cost_of_a_part(site: Site, types: int) -> tuple[Counter[str], int, int]:
    """(calls of the store, looks at tubes, pointers put) of one part."""
    fill(site, types)
    queue = site.queue(Counted)
    queue.open()
    before = looks(site)
    part = next_part(queue)
    assert part is not None
    calls: Counter[str] = queue.store.calls  # type: ignore[attr-defined]
    return calls, looks(site) - before, part.report().put


@pytest.mark.parametrize(
    ("types", "part"),
    [
        (10, SMALL_PART),
        (1000, SMALL_PART),
        pytest.param(100_000, PART_TYPES, marks=pytest.mark.proof),
    ],
)
def test_a_part_costs_a_bounded_number_of_calls(
    site: Site, types: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kqueue.upkeep.sweep.PART_TYPES", part)
    calls, looked, put = cost_of_a_part(site, types)
    seen = min(types, part)
    assert looked == put == seen
    pages = -(-seen // PAGE_TYPES)
    # One more finds that nothing is left to be put.
    assert calls["ready_types"] == calls["mark"] == pages
    assert calls["find_lost"] == 2 * pages
    assert calls["keep_sweep_position"] == (pages if types > PAGE_TYPES else 0)
    assert calls["repair_times"] == pages + 1  # of a page's heads, and of all that has no pointer
    assert calls.total() <= 5 * pages + 12 + calls["keep_sweep_position"], calls


def test_a_part_ends_early_where_its_tubes_take_long(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Counted):
        def ready_types(self, *args: Any) -> Any:
            site.clock.advance(0.4 * PART_WORK_S)
            return self.store.ready_types(*args)

    monkeypatch.setattr("kqueue.upkeep.sweep.PART_WORK_S", PART_WORK_S)
    types = 7 * PAGE_TYPES // 2
    fill(site, types)
    queue = site.queue(Slow, clock=site.clock)
    seen = []
    for _ in range(2):
        queue.open()
        before = looks(site)
        part = next_part(queue)
        assert part is not None
        seen.append((looks(site) - before, part.leaves_more))
        site.clock.advance(PART_S)
    assert seen == [(3 * PAGE_TYPES, True), (PAGE_TYPES // 2, False)]
    assert site.entries(names(types)) == types


def test_a_slow_part_looks_at_one_page_at_least(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kqueue.upkeep.sweep.PART_WORK_S", 0.0)
    fill(site, 2 * PAGE_TYPES)
    part = next_part(site.queue())
    assert part is not None
    assert (part.report().put, part.leaves_more) == (PAGE_TYPES, True)


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
def test_a_page_costs_one_statement_for_its_types_and_one_for_what_is_lost(site: Site) -> None:
    """MongoDB's commands are counted in stores/test_mongo.py."""
    store = fill(site, 300).store
    assert isinstance(store, SqliteStore)
    with watched(store) as cost:
        types = store.ready_types("", PAGE_TYPES)
        assert len(store.find_lost(dict.fromkeys(types), site.clock.time(), GRACE_S, 1000)) == PAGE_TYPES
        assert len(cost().statements) == 2
        assert cost().steps < 200 * PAGE_TYPES


@pytest.mark.parametrize(
    "types", [7 * PAGE_TYPES // 2, 4 * PAGE_TYPES, pytest.param(MOST_TUBES, marks=pytest.mark.proof)]
)
def test_the_parts_of_a_round_come_to_every_type_and_need_no_interval(
    site: Site, types: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_types = PART_TYPES if types > 10_000 else SMALL_PART
    monkeypatch.setattr("kqueue.upkeep.sweep.PART_TYPES", part_types)
    fill(site, types)
    queue, other = site.queue(clock=site.clock), site.queue(clock=site.clock)
    puts = []
    while part := next_part(queue):
        puts.append(part.report().put)
        assert next_part(other) is None, "another process need not help"
        assert queue._parts.sweeper.seconds_to_look() <= max(PART_S, INTERVAL_S / 4)
        site.clock.advance(PART_S)
    full, rest = divmod(types, part_types)
    assert puts == [part_types] * full + [rest]
    assert site.queue().store.sweep_position() == ""
    # The next round comes an interval later, in whatever process, and finds nothing.
    site.clock.advance(INTERVAL_S)
    again = next_part(other)
    assert again is not None
    assert again.report().put == 0


def test_runs_too_short_for_a_page_come_to_every_type(site: Site) -> None:
    """As under cron, where each is killed after its first steps: the store knows how far they came."""
    types = 7 * PAGE_TYPES // 2
    store = fill(site, types).store
    positions = []
    for _ in range(4):
        before = store.sweep_position()
        short = site.queue()
        short.open()
        part = short._parts.sweeper.begin_if_due()
        assert part is not None
        while store.sweep_position() == before and part.step():
            pass
        positions.append(store.sweep_position())
        site.clock.advance(INTERVAL_S)
    assert positions == [*names(types)[PAGE_TYPES - 1 :: PAGE_TYPES], ""]
    assert site.entries(names(types)) == types


def test_a_position_whose_type_is_gone_is_a_position_still(site: Site) -> None:
    queue = fill(site, PAGE_TYPES + 50)
    queue.store.keep_sweep_position("type-000099-and-gone")
    part = next_part(site.queue())
    assert part is not None
    assert part.report().put == 50
    site.clock.advance(INTERVAL_S)
    part = next_part(site.queue())
    assert part is not None
    assert part.report().put == PAGE_TYPES


def test_an_explicit_sweep_comes_to_all_types(site: Site) -> None:
    types = 3 * PAGE_TYPES + 1
    assert fill(site, types).sweep().put == types
    assert site.queue().sweep().put == 0


def test_types_whose_jobs_wait_in_their_tubes_are_put_nothing(site: Site) -> None:
    fill(site, 2 * PAGE_TYPES + 1, lost=False)
    assert site.queue().sweep().put == 0
    assert list(site.queue().findings()) == []


def test_a_dry_run_sees_all_types(site: Site) -> None:
    types = 2 * PAGE_TYPES + 1
    fill(site, types)
    assert {finding.type for finding in site.queue().findings(limit=1000)} == set(names(types))
    assert len(list(site.queue().findings(limit=5))) == 6


def test_a_waiting_worker_goes_through_a_round_part_by_part(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kqueue.upkeep.sweep.PART_TYPES", PAGE_TYPES)
    monkeypatch.setattr("kqueue.upkeep.sweep.PART_S", 0.0)  # the clock of the store stands still
    types = 3 * PAGE_TYPES + 5
    fill(site, types)
    worker = site.queue()

    def finish(job: Any) -> None:
        job.delete()

    for type in names(types)[-3:]:  # the last part's
        worker.add_handler(type, finish)
    assert worker.run_jobs(count_limit=3, wait=True, time_limit_ms=120_000).deleted == 3
