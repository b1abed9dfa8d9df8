"""Which leases are due when: by values alone."""

import math

import pytest

from kqueue.contracts.renewer import Renewal, RenewalEnd
from kqueue.contracts.settlements import Die, Retry
from kqueue.renewal.due import DueRenewals, HandlerProgress, News, Round, WindowEntry, settlement
from kqueue.renewal.messages import RenewalWindow, Told, runs
from tests.tubes import MINT

IDS = MINT.make(6)
CLIENT, SLOT, FIRST = 1, 0, 100
TTR = 60.0
BOUND = 600.0


class Worker:
    """A client whose board says what it is told to."""

    def __init__(
        self, *window: Renewal | None, leased_at: float = 0.0, now: float = 0.0, kills: bool = False
    ) -> None:
        self.keeping = DueRenewals(kills=kills)
        self.progress = HandlerProgress(0, 0.0)
        self.window = window
        self.at = self.keeping.hold(CLIENT, self.said(SLOT, FIRST, leased_at), now)

    def said(self, slot: int, first: int, leased_at: float = 0.0) -> RenewalWindow:
        return RenewalWindow(slot, first, len(self.window), leased_at, runs(self.window))

    def start(self, position: int, now: float = 0.0) -> None:
        self.progress = HandlerProgress(FIRST + position, now)

    def rest(self) -> None:
        self.progress = HandlerProgress(FIRST + len(self.window), 0.0)

    def round(self, now: float) -> Round:
        return self.keeping.round(now, lambda client, slot: self.progress)

    def renewed_at(self, now: float) -> list[str]:
        """The ids that are due, all of which are renewed."""
        due = self.round(now)
        assert due.end == []
        assert self.keeping.renewed(due.renew, frozenset(), now) == []
        return ids(due.renew)

    def next_at(self) -> float:
        return self.keeping.next_at()


def ids(entries: list[WindowEntry]) -> list[str]:
    return [entry.hold.id for entry in entries]


def plain(number: int = 0, ttr: float = TTR) -> Renewal:
    return Renewal(IDS[number], 1, ttr)


def bounded(number: int = 0, bound: float = BOUND, retry_in: float | None = 30.0) -> Renewal:
    return Renewal(IDS[number], 1, TTR, bound, retry_in)


def told(id: str, word: RenewalEnd, *, is_written: bool = False) -> News:
    return News(CLIENT, Told(FIRST, id, word, is_written))


def test_a_lease_is_renewed_at_each_third_of_its_ttr() -> None:
    worker = Worker(plain())
    worker.start(0)
    assert worker.at == worker.next_at() == 20.0
    assert worker.renewed_at(14.9) == []
    for now in (20.0, 40.0, 60.0, 80.0):
        assert worker.next_at() == now
        assert worker.renewed_at(now) == IDS[:1]


def test_a_lease_that_began_before_it_was_said_is_renewed_earlier() -> None:
    worker = Worker(plain(), leased_at=-50.0)
    worker.start(0)
    assert worker.next_at() == -30.0
    assert worker.renewed_at(0.0) == IDS[:1]
    assert worker.next_at() == 20.0


def test_what_is_let_go_or_forgotten_is_not_renewed() -> None:
    for end in (lambda keeping: keeping.let_go(CLIENT, SLOT), lambda keeping: keeping.forget(CLIENT)):
        worker = Worker(plain())
        worker.start(0)
        end(worker.keeping)
        assert worker.next_at() == math.inf
        assert worker.renewed_at(1000.0) == []
        assert len(worker.keeping) == 0


def test_only_the_clients_own_is_forgotten() -> None:
    worker = Worker(plain())
    worker.start(0)
    worker.keeping.forget(CLIENT + 1)
    worker.keeping.let_go(CLIENT + 1, SLOT)
    worker.keeping.let_go(CLIENT, SLOT + 1)
    assert worker.renewed_at(20.0) == IDS[:1]


def test_a_window_takes_the_place_of_the_one_before_in_its_slot() -> None:
    worker = Worker(plain())
    worker.start(0)
    late = worker.round(20.0).renew
    worker.keeping.hold(CLIENT, RenewalWindow(SLOT, FIRST + 5, 1, 20.0, runs([plain(1)])), 20.0)
    assert worker.keeping.renewed(late, {IDS[0]}, 20.0) == []
    worker.progress = HandlerProgress(FIRST + 5, 20.0)
    assert worker.next_at() == 40.0
    assert worker.renewed_at(40.0) == IDS[1:2]


def test_a_window_with_nothing_to_hold_lets_go_of_the_one_before() -> None:
    worker = Worker(plain())
    assert worker.keeping.hold(CLIENT, RenewalWindow(SLOT, FIRST + 5, 1, 20.0, []), 20.0) == math.inf
    assert len(worker.keeping) == 0


def test_of_a_window_what_has_started_is_renewed_and_nothing_else() -> None:
    worker = Worker(plain(0), plain(1), None, plain(2))
    assert worker.renewed_at(20.0) == []
    worker.start(1)
    assert worker.renewed_at(25.0) == IDS[:2]
    worker.start(2)  # of which nothing was said
    assert worker.renewed_at(45.0) == IDS[:2]
    worker.start(3, 46.0)
    assert worker.renewed_at(50.0) == IDS[2:3]


def test_what_has_ended_is_renewed_until_it_is_let_go() -> None:
    worker = Worker(bounded(0), bounded(1))
    worker.rest()
    assert worker.renewed_at(700.0) == IDS[:2]


def test_what_does_not_start_in_its_lease_may_start_later_with_another_one() -> None:
    """Its worker has waited for the renewer, and renews before the start what has become late."""
    worker = Worker(plain(0), plain(1))
    worker.start(0)
    assert worker.renewed_at(20.0) == IDS[:1]
    assert worker.next_at() == 25.0
    assert worker.renewed_at(70.0) == IDS[:1]
    assert worker.next_at() == 75.0
    worker.start(1, 74.0)
    assert worker.renewed_at(75.0) == IDS[1:2]


def test_a_job_is_seen_soon_after_its_start_however_late_that_is() -> None:
    worker = Worker(plain(0), plain(1))
    now = 20.0
    while now < 30.0:
        worker.renewed_at(now)
        now = worker.next_at()
    worker.start(1, 30.0)
    worker.renewed_at(now)
    assert 30.0 <= now <= 35.0
    assert worker.next_at() <= 60.0


def test_what_is_nearly_due_goes_along() -> None:
    worker = Worker(plain(0))
    other = RenewalWindow(SLOT + 1, FIRST + 50, 1, 4.0, runs([plain(1)]))
    third = RenewalWindow(SLOT + 2, FIRST + 60, 1, 6.0, runs([plain(2)]))
    for window in (other, third):
        worker.keeping.hold(CLIENT, window, 4.0)
    serials = {SLOT: FIRST, SLOT + 1: FIRST + 50, SLOT + 2: FIRST + 60}
    due = worker.keeping.round(20.0, lambda client, slot: HandlerProgress(serials[slot], 0.0))
    assert ids(due.renew) == IDS[:2]


def test_the_board_may_be_ahead_of_what_was_said() -> None:
    worker = Worker(plain())
    worker.progress = HandlerProgress(FIRST + 2, 20.0)  # another window has the slot
    assert worker.renewed_at(20.0) == []
    assert 20.0 < worker.next_at() < 21.0


def test_a_job_that_is_not_there_is_lost() -> None:
    worker = Worker(plain(0), plain(1))
    worker.start(1)
    due = worker.round(20.0).renew
    assert worker.keeping.renewed(due, {IDS[1]}, 20.0) == [told(IDS[1], RenewalEnd.LOST)]
    assert worker.renewed_at(40.0) == IDS[:1]


def test_what_was_let_go_while_the_store_was_asked_is_no_news() -> None:
    worker = Worker(bounded())
    worker.start(0)
    due = worker.round(20.0).renew
    worker.keeping.let_go(CLIENT, SLOT)
    assert worker.keeping.renewed(due, {IDS[0]}, 20.0) == []
    assert worker.keeping.failed(due, 90.0) == []
    assert worker.keeping.ended(due, frozenset()) == []


# -- a store that is down ------------------------------------------------------------------------------------


def test_a_renewal_that_fails_is_tried_again_soon_and_the_lease_is_lost_when_it_is_over() -> None:
    worker = Worker(plain())
    worker.start(0)
    now, tries = 20.0, []
    while True:
        due = worker.round(now).renew
        assert ids(due) == IDS[:1]
        tries.append(now)
        news = worker.keeping.failed(due, now)
        if news:
            break
        assert now < worker.next_at() <= now + 1.0
        assert ids(worker.round(worker.next_at() - 0.01).renew) == []
        now = worker.next_at()
    assert news == [told(IDS[0], RenewalEnd.LOST)]
    assert 60.0 <= now <= 61.0
    assert 40 < len(tries) < 50
    assert worker.next_at() == math.inf


def test_a_short_lease_is_tried_again_often() -> None:
    worker = Worker(plain(ttr=1.0))
    worker.start(0)
    now = worker.next_at()
    tries = 0
    while not worker.keeping.failed(worker.round(now).renew, now):
        tries += 1
        assert worker.next_at() - now <= 1 / 12 + 1e-9
        now = worker.next_at()
    assert tries > 6


def test_a_store_that_comes_back_in_time_costs_nothing() -> None:
    worker = Worker(plain())
    worker.start(0)
    due = worker.round(20.0).renew
    assert worker.keeping.failed(due, 59.0) == []
    assert worker.renewed_at(59.5) == IDS[:1]
    assert worker.next_at() == 79.5


def test_a_renewer_that_comes_late_tries_once_before_it_calls_a_lease_lost() -> None:
    worker = Worker(plain())
    worker.start(0)
    assert worker.renewed_at(500.0) == IDS[:1]


# -- max_runtime ---------------------------------------------------------------------------------------------


def test_a_run_that_takes_too_long_is_ended_and_not_renewed() -> None:
    worker = Worker(bounded(bound=70.0))
    worker.start(0, 3.0)
    assert [worker.renewed_at(now) for now in (20.0, 40.0, 60.0)] == [IDS[:1]] * 3
    assert worker.next_at() == 73.0
    assert worker.round(72.9) == Round([], [], [])
    due = worker.round(73.0)
    assert (due.renew, ids(due.end)) == ([], IDS[:1])
    assert worker.keeping.ended(due.end, frozenset()) == [told(IDS[0], RenewalEnd.OVER, is_written=True)]
    assert worker.next_at() == math.inf


def test_a_run_that_was_taken_before_it_took_too_long_is_lost() -> None:
    worker = Worker(bounded(bound=10.0))
    worker.start(0)
    assert worker.at == 10.0
    assert worker.keeping.ended(worker.round(10.0).end, {IDS[0]}) == [told(IDS[0], RenewalEnd.LOST)]


def test_a_run_whose_process_is_to_be_killed_is_named_once_and_left_to_who_kills() -> None:
    worker = Worker(plain(), bounded(1, bound=70.0)._replace(kill=True), kills=True)
    worker.start(1)
    assert worker.renewed_at(20.0) == IDS[:2]
    due = worker.round(70.0)
    assert (ids(due.kill), due.kill[0].serial) == (IDS[1:2], worker.progress.serial)
    assert (ids(due.renew), due.end) == (IDS[:1], [])
    assert worker.keeping.renewed(due.renew, frozenset(), 70.0) == []
    due = worker.round(100.0)
    assert (ids(due.renew), due.end, due.kill) == (IDS[:1], [], [])


def test_where_nobody_kills_it_is_ended_as_any_other() -> None:
    worker = Worker(bounded(bound=70.0)._replace(kill=True))
    worker.start(0)
    due = worker.round(70.0)
    assert (ids(due.end), due.kill) == (IDS[:1], [])


def test_in_a_window_the_time_of_each_run_is_its_own() -> None:
    worker = Worker(bounded(0, 1.0), bounded(1, 1.0))
    worker.start(1, 0.9)
    assert worker.round(1.0) == Round([], [], [])
    assert worker.next_at() == 1.9
    assert ids(worker.round(1.9).end) == IDS[1:2]


def test_a_run_that_ended_takes_no_more_time() -> None:
    worker = Worker(bounded(bound=1.0))
    worker.start(0)
    worker.rest()
    assert worker.round(1.0) == Round([], [], [])
    assert worker.next_at() == 20.0


@pytest.mark.parametrize("bound", [0.000001, 0.01])
def test_the_smallest_bound_does_not_keep_the_renewer_busy(bound: float) -> None:
    worker = Worker(bounded(0, bound), bounded(1, bound))
    assert worker.at >= 0.05
    worker.round(worker.at)
    assert worker.next_at() >= worker.at + 0.05


def test_an_end_that_cannot_be_written_is_told_once_and_tried_until_the_lease_is_over() -> None:
    worker = Worker(bounded(bound=10.0))
    worker.start(0)
    now = 10.0
    end = worker.round(now).end
    assert worker.keeping.failed(end, now) == [told(IDS[0], RenewalEnd.OVER)]
    while worker.next_at() < math.inf:
        now = worker.next_at()
        due = worker.round(now)
        assert (ids(due.renew), ids(due.end)) == ([], IDS[:1])
        assert worker.keeping.failed(due.end, now) == []
    assert 60.0 <= now <= 61.0


def test_an_end_is_told_also_where_renewals_had_failed_before() -> None:
    worker = Worker(bounded(bound=20.5))
    worker.start(0)
    assert worker.keeping.failed(worker.round(20.0).renew, 20.0) == []
    end = worker.round(20.5).end
    assert worker.keeping.failed(end, 20.5) == [told(IDS[0], RenewalEnd.OVER)]
    assert worker.keeping.failed(worker.round(22.0).end, 22.0) == []


def test_an_end_that_is_written_late_is_told_as_written_then() -> None:
    worker = Worker(bounded(bound=10.0))
    worker.start(0)
    worker.keeping.failed(worker.round(10.0).end, 10.0)
    assert worker.round(10.05) == Round([], [], [])
    late = worker.round(11.0).end
    assert worker.keeping.ended(late, frozenset()) == [told(IDS[0], RenewalEnd.OVER, is_written=True)]
    assert worker.next_at() == math.inf


def test_what_is_written_of_a_run_that_took_too_long() -> None:
    reason = "ran longer than max_runtime (600 s)"
    assert settlement(bounded(), 1000.0) == Retry(IDS[0], 1, 1030.0, reason, None, asked_at=1000.0)
    assert settlement(bounded(retry_in=None), 1000.0) == Die(IDS[0], 1, reason)
    assert settlement(bounded(bound=0.5), 0.0).reason == "ran longer than max_runtime (0.5 s)"
