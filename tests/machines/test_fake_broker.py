"""The fake server does what was measured of beanstalkd; that it keeps the contract is shown with the real one's."""

import pytest

from kqueue.contracts.broker import Entry, EntryFate, Pointer
from kqueue.contracts.repair import Head
from kqueue.contracts.runs import Selection
from kqueue.model.errors import BrokerUnavailable
from kqueue.system.clock import ManualClock
from kqueue.system.mint import IdMint
from tests.machines.broker import FakeBroker, FakeSubscription
from tests.machines.server import BURIED, DELAYED, READY, RESERVED, FakeServer, Outage

PUT_AT = 1_700_000_000.0
MINT = IdMint()


class Site:
    """A server, a broker on it whose next calls fail as told, and a subscription."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.server = FakeServer(self.clock)
        self.outages: list[Outage] = []
        self.broker = FakeBroker(self.server, self.line)
        self.broker.open("p1.")
        self.mine = self.subscribe()
        self.theirs = self.subscribe()

    def line(self, name, effect):
        return self.server.exchange(effect, self.outages.pop(0) if self.outages else None)

    def subscribe(self) -> FakeSubscription:
        return self.broker.subscribe(["mail"])

    def put(self, priority: int = 5, delay: float = 0, put_at: float = PUT_AT) -> str:
        [job_id] = MINT.make(1)
        self.broker.put([(Pointer("mail", priority, put_at, (job_id,)), delay)])
        return job_id

    def states(self) -> list[str]:
        return [item.state for item in self.server.items()]


@pytest.fixture
def site() -> Site:
    return Site()


def taken(subscription: FakeSubscription, jobs: int = 1000) -> list[str]:
    return [job_id for entry in subscription.reserve(jobs, 0).entries for job_id in entry.pointer.ids]


def reserved(subscription: FakeSubscription) -> Entry:
    [entry] = subscription.reserve(1, 0).entries
    return entry


# -- memory ----------------------------------------------------------------------------------------------


def test_without_a_binlog_a_restart_forgets_everything_and_gives_the_same_ids_again(site):
    site.put()
    entry = reserved(site.mine)
    site.server.restart(binlog=False)
    other = site.put()
    assert [item.id for item in site.server.items()] == [1]
    assert site.mine.settle([EntryFate(entry, None)]) == 1  # the old id means nothing on a new connection
    assert taken(site.theirs) == [other]


def test_with_a_binlog_a_restart_keeps_all_and_what_was_reserved_is_ready(site):
    first, _, _ = site.put(), site.put(delay=5), site.put()
    reserved(site.mine)
    site.server.restart(binlog=True)
    assert site.states() == [READY, DELAYED, READY]
    assert taken(site.theirs)[0] == first
    assert site.server.put("p1.mail", 5, 0, b"") == 4


def test_with_a_binlog_ids_begin_again_once_nothing_was_left(site):
    site.put()
    site.mine.settle([EntryFate(reserved(site.mine), None)])
    site.server.restart(binlog=True)
    assert site.server.put("p1.mail", 5, 0, b"") == 1


def test_entries_keep_their_places_over_a_restart_with_a_binlog(site):
    ids = [site.put(), site.put()]
    site.server.restart(binlog=True)
    site.put(priority=4)
    assert taken(site.mine)[1:] == ids


# -- TTR and time ----------------------------------------------------------------------------------------


def test_a_ttr_that_fires_gives_the_entry_to_others(site):
    job_id = site.put()
    entry = reserved(site.mine)
    site.clock.advance(60)
    assert taken(site.theirs) == [job_id]
    assert site.mine.settle([EntryFate(entry, None)]) == 1


def test_a_ttr_that_never_fires_keeps_the_entry_until_its_owner_says_something(site):
    site.server.fires_ttr = False
    job_id = site.put()
    entry = reserved(site.mine)
    site.clock.advance(3600)
    assert taken(site.theirs) == []
    assert site.mine.settle([EntryFate(entry, 0)]) == 1
    assert taken(site.theirs) == [job_id]


def test_a_ttr_that_never_fires_ends_with_the_connection(site):
    site.server.fires_ttr = False
    job_id = site.put()
    reserved(site.mine)
    site.mine.close()
    assert taken(site.theirs) == [job_id]


def test_an_hour_forward_frees_every_reserved_and_delayed_entry_at_once(site):
    site.put(), site.put(delay=3000)
    reserved(site.mine)
    site.clock.jump(3600)
    assert site.states() == [READY, READY]


# -- who may do what -------------------------------------------------------------------------------------


def test_a_dropped_connection_releases_at_once_to_the_old_place(site):
    ids = [site.put() for _ in range(3)]
    reserved(site.mine)
    site.mine.close()
    assert taken(site.theirs) == ids


def test_an_entry_that_is_reserved_elsewhere_cannot_be_deleted_and_any_other_can(site):
    site.put(), site.put(), site.put(delay=5)
    reserved(site.mine)
    assert [site.server.delete(id) for id in (1, 2, 3, 4)] == [False, True, True, False]


def test_a_stranded_entry_is_found_by_delete_only(site):
    site.put()
    reserved(site.mine)
    site.server.strand(1)
    site.mine.close()
    site.clock.advance(10**6)
    assert taken(site.theirs) == []
    assert site.broker.peek(["mail"])["mail"].head is None
    assert site.broker.drain("mail") == 0
    assert site.states() == [RESERVED]
    assert site.server.delete(1)


def test_a_paused_tube_serves_nothing_and_shows_its_head(site):
    job_id = site.put()
    site.server.pause("p1.mail", 60)
    assert taken(site.mine) == []
    assert site.broker.peek(["mail"])["mail"].head == Head(5, PUT_AT)
    site.clock.advance(60)
    assert taken(site.mine) == [job_id]


def test_garbage_is_buried_and_counted_by_a_reserve_and_by_a_look(site):
    site.server.put("p1.mail", 0, 0, b"garbage")
    assert site.broker.peek(["mail"])["mail"] == (None, 1)
    site.server.put("p1.mail", 0, 0, b"garbage")
    job_id = site.put()
    reservation = site.mine.reserve(1, 0)
    assert (reservation.foreign, reservation.entries[0].pointer.ids) == (1, (job_id,))
    assert site.states() == [BURIED, BURIED, RESERVED]


def test_strangers_alone_leave_a_selection_of_nothing(site):
    site.server.put("p1.mail", 0, 0, b"garbage")
    assert site.mine.reserve(1, 0) == (Selection(("mail",), ()), [], 1)


def test_a_kick_takes_the_buried_before_the_delayed(site):
    site.server.put("p1.mail", 0, 0, b"garbage")
    site.put(delay=5)
    site.broker.peek(["mail"])
    assert [site.server.kick("p1.mail") for _ in range(3)] == [1, 1, 0]


# -- the line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outage", "entries"), [(Outage.BEFORE, 0), (Outage.AFTER, 1), (Outage.LATE, 0)])
def test_a_put_that_raises_may_have_been_done_or_not(site, outage, entries):
    site.outages = [outage]
    with pytest.raises(BrokerUnavailable, match="fake:"):
        site.put()
    assert len(site.server.items()) == entries
    site.server.catch_up()
    assert len(site.server.items()) == (0 if outage is Outage.BEFORE else 1)


@pytest.mark.parametrize("outage", Outage)
def test_what_a_failed_reserve_got_is_free_again_once_the_server_sees_the_end(site, outage):
    job_id = site.put()
    site.outages = [outage]
    with pytest.raises(BrokerUnavailable):
        site.mine.reserve(1, 0)
    site.server.catch_up()
    assert taken(site.theirs) == [job_id]


@pytest.mark.parametrize(("outage", "left"), [(Outage.BEFORE, 1), (Outage.AFTER, 0), (Outage.LATE, 0)])
def test_a_failed_settle_loses_the_connection_and_with_it_what_is_held(site, outage, left):
    site.put()
    entry = reserved(site.mine)
    site.outages = [outage]
    with pytest.raises(BrokerUnavailable):
        site.mine.settle([EntryFate(entry, None)])
    site.server.catch_up()
    assert site.states() == [READY] * left
    assert site.mine.settle([EntryFate(entry, None)]) == 1


def test_a_server_that_is_down_answers_nobody_and_loses_nothing(site):
    job_id = site.put()
    site.server.is_down = True
    for call in (site.put, lambda: site.broker.peek(["mail"]), lambda: site.mine.reserve(1, 0)):
        with pytest.raises(BrokerUnavailable):
            call()
    site.server.is_down = False
    assert taken(site.mine) == [job_id]


def test_in_drain_mode_puts_are_refused_and_the_rest_is_served(site):
    job_id = site.put()
    site.server.refuses_puts = True
    with pytest.raises(BrokerUnavailable, match="DRAINING"):
        site.put()
    assert taken(site.mine) == [job_id]
