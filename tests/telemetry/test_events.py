"""Who is told, what becomes of an observer that raises, and what one settle tells: without I/O."""

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

import kqueue
from kqueue.contracts.lookup import Backlog
from kqueue.contracts.settlements import Delete, Die, Finish, Outcome, Retry, Settlement, Unget
from kqueue.model import events
from kqueue.model.events import (
    Added,
    Died,
    Event,
    Finished,
    GivenBack,
    LostLease,
    Reconnected,
    Retried,
    Started,
    Swept,
)
from kqueue.model.job import Row
from kqueue.model.reports import SweepReport, TypeStats
from kqueue.system.clock import ManualClock
from kqueue.system.mint import IdMint
from kqueue.telemetry.counters import Counters
from kqueue.telemetry.outages import Outages
from kqueue.telemetry.subscribers import Subscribers, name_of
from kqueue.telemetry.telemetry import Seconds, Settlings, Telemetry

NOW = 1_700_000_000.0
LOGGER = logging.getLogger("kqueue")
A, B = (Reconnected(NOW, server, 1.0) for server in "ab")
FIRST, SECOND, THIRD, FOURTH, FIFTH = IdMint().make(5)


@pytest.fixture
def observers() -> Subscribers:
    return Subscribers(LOGGER)


@pytest.fixture
def seen() -> list[Event]:
    return []


def make_telemetry(observers: Subscribers, log_payloads: bool = False) -> Telemetry:
    return Telemetry(observers, ManualClock(), lambda: NOW, LOGGER, log_payloads)


def row(job_id: str = FIRST, **more: Any) -> Row:
    values = {"tries": 2, "fence": 3, "reason": None, **more}
    return Row(job_id, "t", b'"secret"', "json", 5, "running", 0, NOW, 10, **values)


# -- the values ---------------------------------------------------------------------------------------------


def all_kinds() -> list[type[Event]]:
    return [kind for kind in vars(events).values() if isinstance(kind, type) and kind.__base__ is Event]


def test_each_event_is_public_and_frozen_and_has_no_dictionary() -> None:
    kinds = all_kinds()
    names = "Added Started Finished Retried Died GivenBack LostLease Progressed Logged Swept Reconnected"
    assert [kind.__name__ for kind in kinds] == names.split()
    for kind in [Event, *kinds]:
        assert getattr(kqueue, kind.__name__) is kind
        assert kind.__doc__
        assert dataclasses.fields(kind)[0].name == "at"
    with pytest.raises(dataclasses.FrozenInstanceError):
        A.server = "c"  # type: ignore[misc]
    assert not hasattr(A, "__dict__")
    assert not hasattr(events, "LeaseLost")


def test_each_event_of_a_run_says_which() -> None:
    for kind in (Started, Finished, Retried, Died, GivenBack, LostLease):
        names = [field.name for field in dataclasses.fields(kind)]
        assert names[:5] == ["at", "job_id", "type", "tries", "fence"]
        assert (names[5:6] == ["seconds"]) == (kind is not Started)


# -- observers ----------------------------------------------------------------------------------------------


def test_all_are_told_everything_in_the_order_subscribed(observers: Subscribers) -> None:
    told: list[tuple[int, Event]] = []
    observers.subscribe(lambda event: told.append((1, event)))
    observers.subscribe(lambda event: told.append((2, event)))
    observers.publish([A, B])
    assert told == [(1, A), (2, A), (1, B), (2, B)]


def test_whether_there_are_any(observers: Subscribers, seen: list[Event]) -> None:
    assert not observers.are_any()
    end = observers.subscribe(seen.append)
    assert observers.are_any()
    end()
    assert not observers.are_any()


def test_what_ends_a_subscription(observers: Subscribers, seen: list[Event]) -> None:
    end = observers.subscribe(seen.append)
    end()
    end()
    assert not observers.unsubscribe(seen.append)
    observers.publish([A])
    end = observers.subscribe(seen.append)
    assert observers.unsubscribe(seen.append)
    assert not observers.unsubscribe(print)
    end()
    observers.publish([A])
    assert seen == []


def test_an_end_is_that_of_its_own_subscription(observers: Subscribers, seen: list[Event]) -> None:
    first = observers.subscribe(seen.append)
    first()
    observers.subscribe(seen.append)
    first()
    observers.publish([A])
    assert seen == [A]


def test_a_function_that_is_subscribed_is_refused_a_second_time(observers: Subscribers) -> None:
    class Recorder:
        def record(self, event: Event) -> None:
            """One method of one object is one observer, whatever Python makes anew at each look."""

    recorder, other = Recorder(), Recorder()
    observers.subscribe(recorder.record)
    observers.subscribe(other.record)
    with pytest.raises(ValueError, match=r"function: .*Recorder\.record is subscribed already"):
        observers.subscribe(recorder.record)


def test_one_that_cannot_be_hashed_is_as_good_as_any(observers: Subscribers) -> None:
    @dataclasses.dataclass
    class Count:
        events: int = 0

        def __call__(self, event: Event) -> None:
            self.events += 1

    count = Count()
    observers.subscribe(count)
    observers.publish([A, B])
    assert count.events == 2
    assert observers.unsubscribe(count)
    assert name_of(count) == "Count"


def test_one_that_unsubscribes_itself_is_told_nothing_more_of_the_same_lot(
    observers: Subscribers, seen: list[Event]
) -> None:
    once: list[Event] = []

    def first_only(event: Event) -> None:
        once.append(event)
        observers.unsubscribe(first_only)

    observers.subscribe(first_only)
    observers.subscribe(seen.append)
    observers.publish([A, B])
    assert (once, seen) == ([A], [A, B])


def test_one_that_comes_meanwhile_is_told_what_follows(observers: Subscribers, seen: list[Event]) -> None:
    def bring(event: Event) -> None:
        if not seen:
            observers.unsubscribe(bring)
            observers.subscribe(seen.append)

    observers.subscribe(bring)
    observers.publish([A, B])
    assert seen == [B]


class Odd(BaseException):
    """Not an ``Exception``, as some libraries have them."""


@pytest.mark.parametrize("error", [RuntimeError, Odd, GeneratorExit])
def test_one_that_raises_is_logged_once_and_called_further(
    observers: Subscribers, seen: list[Event], caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    calls: list[Event] = []

    def broken(event: Event) -> None:
        calls.append(event)
        raise error("out of order")

    observers.subscribe(broken)
    observers.subscribe(seen.append)
    observers.publish([A, B] * 50)
    assert len(calls) == len(seen) == 100
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "broken raised " + error.__name__ in record.getMessage()
    assert record.exc_info
    assert "out of order" in str(record.exc_info[1])


def test_each_kind_of_error_of_each_observer_is_logged(
    observers: Subscribers, caplog: pytest.LogCaptureFixture
) -> None:
    def make(*errors: Exception) -> Callable[[Event], None]:
        rest = list(errors)

        def raise_next(event: Event) -> None:
            raise rest.pop(0)

        return raise_next

    observers.subscribe(make(KeyError(), OSError(), KeyError()))
    observers.subscribe(make(KeyError(), KeyError(), KeyError()))
    observers.publish([A, A, A])
    assert [record.getMessage().split()[4] for record in caplog.records] == ["KeyError", "KeyError", "OSError"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_goes_on_in_the_main_thread_only(
    observers: Subscribers, seen: list[Event], caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    def interrupted(event: Event) -> None:
        raise error

    observers.subscribe(interrupted)
    observers.subscribe(seen.append)
    with pytest.raises(error):
        observers.publish([A, B])
    assert (seen, caplog.records) == ([], [])
    thread = threading.Thread(target=observers.publish, args=([A, B],))
    thread.start()
    thread.join()
    assert seen == [A, B]
    assert len(caplog.records) == 1


# -- what one settle tells ----------------------------------------------------------------------------------

SETTLED: list[tuple[Settlement, Event]] = [
    (Delete(FIRST, 3), Finished(NOW, FIRST, "t", 2, 3, 0.5)),
    (Retry(SECOND, 3, NOW + 30, "why", None), Retried(NOW, SECOND, "t", 2, 3, 0.5, "why", NOW + 30)),
    (Die(THIRD, 3, "why"), Died(NOW, THIRD, "t", 2, 3, 0.5, "why")),
    (
        Unget(FOURTH, 3, NOW + 1, None, None, started=True, reason="snoozed for 1 s"),
        GivenBack(NOW, FOURTH, "t", 2, 3, 0.5, "snoozed for 1 s", NOW + 1),
    ),
    (Delete(FIFTH, 3), LostLease(NOW, FIFTH, "t", 2, 3, 0.5, "deleted")),
]


def written(*settlements: Settlement, lost: str = "") -> Settlings:
    ended = [(row(one.id), one) for one in settlements]
    others = [one for one in ended if not isinstance(one[1], Delete) and one[1].id != lost]
    return Settlings(NOW, ended, frozenset({lost}) if lost else frozenset(), others)


def all_written() -> Settlings:
    return written(*(settlement for settlement, _ in SETTLED), lost=FIFTH)


def halves(written: Settlings) -> Seconds:
    return {(row.id, row.fence): 0.5 for row, _ in written.ended}


def test_each_end_is_one_event_in_the_order_of_the_ends(observers: Subscribers, seen: list[Event]) -> None:
    observers.subscribe(seen.append)
    make_telemetry(observers).settled(all_written(), halves(all_written()))
    assert seen == [event for _, event in SETTLED]


def test_a_job_that_is_kept_is_finished_too(
    observers: Subscribers, seen: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    observers.subscribe(seen.append)
    telemetry = make_telemetry(observers)
    telemetry.settled(written(Finish(FIRST, 3, NOW + 60), Delete(SECOND, 3)), {(FIRST, 3): 0.5, (SECOND, 3): 0.5})
    assert seen == [Finished(NOW, FIRST, "t", 2, 3, 0.5), Finished(NOW, SECOND, "t", 2, 3, 0.5)]
    assert telemetry.counters.stats([], {}, NOW).types["t"].finished == 2
    assert caplog.records == []


def test_what_was_given_back_unstarted_is_no_event_and_no_end(observers: Subscribers, seen: list[Event]) -> None:
    observers.subscribe(seen.append)
    telemetry = make_telemetry(observers)
    telemetry.settled(written(Unget(FIRST, 3, NOW, None, None, started=False)), {})
    telemetry.settled(written(Unget(FIRST, 3, NOW, None, None, started=False), lost=FIRST), {})
    assert seen == []
    assert dict(telemetry.counters.stats([], {}, NOW).types) == {}


def test_an_end_is_told_where_the_start_was_and_once(observers: Subscribers, seen: list[Event]) -> None:
    """Who subscribes while a window runs would learn of ends whose starts he was not told."""
    observers.subscribe(seen.append)
    telemetry, seconds = make_telemetry(observers), {(SECOND, 3): 0.5, (SECOND, 4): 1.0}
    telemetry.settled(all_written(), seconds)
    telemetry.settled(all_written(), seconds)
    assert seen == [SETTLED[1][1]]
    assert seconds == {(SECOND, 4): 1.0}  # of the next run, which may have ended before this is told


def test_ends_are_counted_by_type(observers: Subscribers) -> None:
    telemetry = make_telemetry(observers)
    telemetry.added("t", [FIRST, SECOND], NOW)
    telemetry.added("t", [FIRST], NOW, is_new=False)
    telemetry.ran({"t": [0.25, 0.5], "u": [1.0]})
    telemetry.settled(all_written(), {})
    telemetry.settled(written(Delete(FIRST, 3), Delete(SECOND, 3)), {})
    assert dict(telemetry.counters.stats([], {}, NOW).types) == {
        "t": TypeStats(
            added=2, run=2, finished=3, failed=2, died=1, given_back=1, lost_lease=1, seconds=0.75, waiting=0
        ),
        "u": TypeStats(run=1, seconds=1.0),
    }


def test_an_add_that_met_its_first_is_told_as_not_new(observers: Subscribers, seen: list[Event]) -> None:
    observers.subscribe(seen.append)
    telemetry = make_telemetry(observers)
    telemetry.added("t", [FIRST, SECOND], NOW)
    telemetry.added("t", [FIRST], NOW + 1, is_new=False)
    assert seen == [
        Added(NOW, FIRST, "t", is_new=True),
        Added(NOW, SECOND, "t", is_new=True),
        Added(NOW + 1, FIRST, "t", is_new=False),
    ]


def test_no_event_is_made_where_nobody_listens(observers: Subscribers, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in all_kinds():
        monkeypatch.setattr(f"kqueue.telemetry.telemetry.{kind.__name__}", None)
    telemetry = make_telemetry(observers)
    telemetry.added("t", [FIRST], NOW)
    telemetry.started(row())
    telemetry.settled(all_written(), halves(all_written()))
    telemetry.swept(SweepReport())
    telemetry.reconnected("a", 1.0)
    observers.subscribe(print)
    with pytest.raises(TypeError):
        telemetry.swept(SweepReport())


def test_starts_and_sweeps_are_told(observers: Subscribers, seen: list[Event]) -> None:
    observers.subscribe(seen.append)
    telemetry = make_telemetry(observers)
    telemetry.started(row())
    telemetry.swept(SweepReport(put=7))
    assert seen == [Started(NOW, FIRST, "t", 2, 3), Swept(NOW, SweepReport(put=7))]


# -- outages ------------------------------------------------------------------------------------------------


def test_an_outage_is_told_once_whoever_hears_its_end_first(observers: Subscribers, seen: list[Event]) -> None:
    clock = ManualClock()
    observers.subscribe(seen.append)
    outages = Outages(make_telemetry(observers), clock)
    outages.is_over("a")
    outages.has_begun("a")
    clock.advance(3)
    outages.has_begun("a")
    outages.is_over("b")
    clock.advance(4)
    outages.is_over("a")
    outages.is_over("a")
    assert seen == [Reconnected(NOW, "a", 7.0)]


# -- counters -----------------------------------------------------------------------------------------------


def test_many_threads_count_together() -> None:
    counters = Counters(ManualClock())

    def count() -> None:
        for _ in range(500):
            counters.added("t", 2)
            counters.ran({"t": [0.5]})
            counters.settled(["t"], [("t", Outcome.RETRIED)])

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(counters.stats([], {}, NOW).types) == {
        "t": TypeStats(added=4000, run=2000, finished=2000, failed=2000, seconds=1000.0)
    }


def test_what_waits_stands_beside_the_counts() -> None:
    clock = ManualClock()
    counters = Counters(clock)
    counters.added("t", 3)
    clock.advance(60)
    overview = [
        Backlog("a", "dead", 9, NOW - 900),
        Backlog("b", "delayed", 2, NOW + 10),
        Backlog("c", "delayed", 2, NOW - 10),
        Backlog("t", "delayed", 4, NOW - 20),
        Backlog("t", "done", 9, NOW - 900),
        Backlog("t", "held", 2, NOW - 30),
        Backlog("t", "ready", 5, NOW - 25),
        Backlog("t", "running", 1, NOW - 900),
        Backlog("u", "ready", 1, NOW + 0.5),
    ]
    stats = counters.stats(overview, {"t": 3}, NOW)
    assert (stats.at, stats.seconds) == (NOW, 60)
    assert {type: (one.added, one.waiting, one.oldest_age) for type, one in stats.types.items()} == {
        "a": (0, 0, None),
        "b": (0, 0, None),
        "c": (0, 1, 10),  # one at least is due, however many were counted
        "t": (3, 10, 30),
        "u": (0, 1, 0),  # added by a clock that is ahead
    }
    with pytest.raises(TypeError):
        stats.types["t"] = TypeStats()  # type: ignore[index]
