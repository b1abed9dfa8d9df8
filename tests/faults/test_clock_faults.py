"""Wall clocks that jump or are wrong: nothing is lost, nothing runs twice but what outlived its lease by the jump.

Delays that were given before a jump end by the new clock, so they are off by the jump; those given later are right.
Delays are too long for a tube where a test turns the clock past them: a real beanstalkd counts real seconds.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kqueue import JobInHand, KQueue, LeaseLost
from kqueue.contracts.rules import GRACE_S
from kqueue.dispatch.pointers import MAX_TUBE_DELAY_S
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import Clock, ManualClock
from tests.beanstalkd import Beanstalkd
from tests.faults.conftest import TTR_S, House
from tests.faults.sites import SQLITE, abandon, assert_over, house_at

HOUR_S = 3600.0
#: Seconds; without a pointer in a tube.
DELAY_S = 3 * MAX_TUBE_DELAY_S
#: Seconds before the end of a delay at which no sweep puts its job yet.
EARLY_S = 100.0
SWEEP_S = 15.0

ON_ALL = pytest.mark.parametrize("house", SQLITE, indirect=True)
ON_TUBES = pytest.mark.parametrize("house", ["sqlite+beanstalkd"], indirect=True)
AN_HOUR = pytest.mark.parametrize("jump", [HOUR_S, -HOUR_S], ids=["forward", "back"])


@pytest.fixture
def house(request: pytest.FixtureRequest) -> House:
    return house_at(request.param, request)


def ran(house: House) -> list[object]:
    return [run.payload for run in house.runs()]


def assert_runs_after(house: House, payload: str, seconds: float) -> None:
    """The job runs once its time has come, and not before."""
    house.clock.advance(seconds - EARLY_S)
    house.queue.sweep()
    house.queue.run_jobs()
    assert payload not in ran(house)
    house.clock.advance(EARLY_S)
    house.queue.sweep()
    house.queue.run_jobs()
    assert ran(house).count(payload) == 1


# -- a wall clock one hour forward, and back ---------------------------------------------------------------


@ON_ALL
@AN_HOUR
def test_a_wall_clock_that_jumps_while_jobs_wait(house: House, jump: float) -> None:
    house.add(*range(20))
    house.clock.jump(jump)
    assert house.queue.sweep().put == 0
    house.add("after the jump")
    assert house.queue.run_jobs().deleted == 21
    assert_over(house)


@ON_ALL
@AN_HOUR
def test_a_wall_clock_that_jumps_while_jobs_are_delayed(house: House, jump: float) -> None:
    house.add("before", delay=DELAY_S)
    house.clock.jump(jump)
    assert_runs_after(house, "before", DELAY_S - jump)
    house.add("after", delay=DELAY_S)
    assert_runs_after(house, "after", DELAY_S)
    assert_over(house)


@ON_ALL
def test_a_wall_clock_that_jumps_forward_while_a_job_runs(house: House) -> None:
    """Its lease is over at once. If others take the job, its holder is told so and changes nothing."""
    other = house.another("t")

    def handle(job: JobInHand) -> None:
        house.ran(job)
        house.clock.jump(HOUR_S)
        if job.payload == "taken over":
            assert other.sweep().recovered == 1
            assert other.run_jobs().deleted == 1
            with pytest.raises(LeaseLost):
                job.delete()
        else:
            job.delete()

    house.queue.remove_handler("t")
    house.queue.add_handler("t", handle)
    house.add("taken over")
    report = house.queue.run_jobs()
    assert (report.count, report.deleted, report.lost_lease) == (1, 0, 1)
    house.add("left alone")
    assert house.queue.run_jobs().deleted == 1
    assert_over(house, more_runs=1)


@ON_ALL
def test_a_wall_clock_that_jumps_back_while_a_job_runs(house: House) -> None:
    """Its lease is longer by the jump; a renewal makes it as long as it should be."""
    leases: list[float] = []
    other = house.another("t")

    def handle(job: JobInHand) -> None:
        house.ran(job)
        house.clock.jump(-HOUR_S)
        house.clock.advance(TTR_S / 2)
        assert other.sweep().recovered == 0
        assert other.run_jobs().count == 0
        job.renew()
        (row,) = other.store.get([job.id])
        leases.append((row.lease_until or 0.0) - house.clock.time())
        job.delete()

    house.queue.remove_handler("t")
    house.queue.add_handler("t", handle)
    house.add("running")
    assert house.queue.run_jobs().deleted == 1
    assert leases == [TTR_S]
    assert_over(house)


@ON_ALL
@AN_HOUR
def test_a_wall_clock_that_jumps_after_a_worker_has_died(house: House, jump: float) -> None:
    """Its job comes back, after a jump back later by the jump and no more."""
    abandon(house, *house.add("abandoned"))
    house.clock.jump(jump)
    house.clock.advance(TTR_S + max(0.0, -jump))
    assert house.queue.sweep().recovered == 1
    assert_over(house)


@ON_ALL
@AN_HOUR
def test_a_wall_clock_that_jumps_between_two_sweeps(house: House, jump: float) -> None:
    """The next run sweeps when its time has come, or at once after a jump back: what is delayed becomes ready."""
    house.queue.run_jobs()  # sweeps
    house.add("delayed", delay=DELAY_S)
    house.clock.jump(jump)
    house.clock.advance(DELAY_S - jump)
    assert house.another("t").run_jobs().deleted == 1
    house.clock.jump(-jump)
    assert house.another()._parts.sweeper.begin_if_due() is not None
    assert_over(house)


@ON_TUBES
@AN_HOUR
def test_a_wall_clock_that_jumps_before_the_tubes_are_lost(
    house: House, jump: float, beanstalkd: Beanstalkd
) -> None:
    """Their jobs are put again, after a jump back later by the jump and no more."""
    house.add(*range(20))
    house.clock.jump(jump)
    beanstalkd.restart()
    house.clock.advance(GRACE_S + max(0.0, -jump))
    assert house.queue.sweep().put == 20
    assert_over(house)


@ON_TUBES
@AN_HOUR
def test_a_wall_clock_that_jumps_makes_no_storm_of_puts(house: House, jump: float) -> None:
    """Rows of before and after the jump wait in one tube, and nobody serves it for a while."""
    house.add(*range(20))
    house.clock.jump(jump)
    house.add(*range(20, 40))
    assert puts_of_ten_sweeps(house) <= 40
    assert_over(house)


# -- what was stored while a clock was ahead ----------------------------------------------------------------

AHEAD = pytest.mark.parametrize("ahead", [40.0, 3 * 365 * 86_400.0], ids=["40 s", "3 years"])


@ON_TUBES
@AHEAD
def test_jobs_of_a_clock_ahead_that_lost_their_pointers_do_not_wait_for_it(
    house: House, ahead: float, beanstalkd: Beanstalkd
) -> None:
    house.clock.jump(ahead)
    house.add(*range(10))
    house.clock.jump(-ahead)
    beanstalkd.restart()
    assert any("times in the future" in one.text and "10 jobs" in one.text for one in house.queue.checkup())
    assert house.queue.sweep().redated == 10
    assert not any("times in the future" in one.text for one in house.queue.checkup())
    house.clock.advance(2 * GRACE_S)
    assert house.queue.sweep().put == 10
    assert house.queue.run_jobs().deleted == 10
    assert_over(house)


@ON_ALL
@AHEAD
def test_a_job_that_was_delayed_by_a_clock_ahead_waits_as_long_as_it_was_asked_to(
    house: House, ahead: float
) -> None:
    house.clock.jump(ahead)
    house.add("delayed", delay=DELAY_S)
    [retried] = house.add("retried")
    house.queue.remove_handler("t")
    house.queue.add_handler("t", lambda job: (house.ran(job), job.retry("later", delay=DELAY_S)))
    house.queue.run_jobs()
    house.queue.remove_handler("t")
    house.queue.add_handler("t", house.handle)
    house.clock.jump(-ahead)
    assert house.queue.sweep().redated >= 2
    house.clock.advance(DELAY_S - EARLY_S)
    house.queue.sweep()
    house.queue.run_jobs()
    assert ran(house) == ["retried"]
    house.clock.advance(EARLY_S)
    house.queue.sweep()
    assert house.queue.run_jobs().deleted == 2
    assert {run.id for run in house.runs() if run.payload == "retried"} == {retried}
    assert_over(house, more_runs=1)


@ON_ALL
@AHEAD
def test_a_lease_of_a_clock_ahead_ends_a_whole_ttr_later(house: House, ahead: float) -> None:
    ids = house.add("abandoned")
    house.clock.jump(ahead)
    abandon(house, *ids)
    house.clock.jump(-ahead)
    assert house.queue.sweep().redated == 1
    house.clock.advance(TTR_S - 1)
    assert house.queue.sweep().recovered == 0
    house.clock.advance(1)
    assert house.queue.sweep().recovered == 1
    assert_over(house)


def puts_of_ten_sweeps(house: House) -> int:
    put = 0
    for _ in range(10):
        house.clock.advance(SWEEP_S)
        put += house.queue.sweep().put
    return put


# -- a producer whose clock is minutes off -----------------------------------------------------------------


class WrongClock(ManualClock):
    """Runs with the right one, and is off by so many seconds."""

    def __init__(self, right: Clock, off: float) -> None:
        self._right = right
        self._off = off

    def time(self) -> float:
        return self._right.time() + self._off

    def monotonic(self) -> float:
        return self._right.monotonic()


OFF = pytest.mark.parametrize("off", [300.0, -300.0], ids=["ahead", "behind"])


@pytest.fixture
def producer(house: House, off: float, tmp_path: Path) -> Iterator[KQueue]:
    """On the store of the house and its broker."""
    broker = house.queue.broker
    store = SqliteStore(tmp_path / "jobs.db", clock=WrongClock(house.clock, off))
    with KQueue(store, broker.address if broker.carries_pointers else None) as queue:
        yield queue


@ON_ALL
@OFF
def test_a_producer_whose_clock_is_off_has_its_jobs_run_at_once(house: House, producer: KQueue, off: float) -> None:
    house.add(*range(10), queue=producer)
    house.add(*range(10, 20))
    house.add(*range(20, 30), queue=producer)
    assert house.queue.run_jobs().deleted == 30
    assert_over(house)


@ON_ALL
@OFF
def test_a_producer_whose_clock_is_off_has_delays_that_are_off_by_as_much(
    house: House, producer: KQueue, off: float
) -> None:
    house.add("theirs", queue=producer, delay=DELAY_S)
    assert_runs_after(house, "theirs", DELAY_S + off)
    house.add("ours", delay=DELAY_S)
    assert_runs_after(house, "ours", DELAY_S)
    assert_over(house)


@ON_TUBES
@OFF
def test_a_producer_whose_clock_is_off_makes_no_storm_of_puts(house: House, producer: KQueue, off: float) -> None:
    """Its jobs wait among others in one tube, whichever stands at the head."""
    for first in (0, 20):
        house.add(*range(first, first + 10), queue=producer)
        house.add(*range(first + 10, first + 20))
    assert puts_of_ten_sweeps(house) <= 40
    assert_over(house)


@ON_TUBES
@OFF
def test_a_producer_whose_clock_is_off_has_lost_pointers_put_again(
    house: House, producer: KQueue, off: float, beanstalkd: Beanstalkd
) -> None:
    """Within the grace, and as much as its clock is ahead."""
    house.add(*range(10), queue=producer)
    beanstalkd.restart()
    house.add(*range(10, 20))
    beanstalkd.restart()
    house.clock.advance(GRACE_S + max(0.0, off))
    assert house.queue.sweep().put == 20
    assert house.queue.sweep().put == 0
    assert_over(house)
