"""The dry run says what a sweep would do, and does none of it."""

import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kqueue import BrokerUnavailable, Finding, KQueue, Repair, State, SweepReport
from kqueue.admin.dry_run import STRANGER, span
from kqueue.contracts.broker import Pointer
from kqueue.contracts.budget import Budget
from kqueue.contracts.rules import GRACE_S
from kqueue.contracts.runs import Selection
from kqueue.model.job import Row
from kqueue.stores.memory.store import MemoryStore
from kqueue.stores.sqlite import statements as sql
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from kqueue.system.mint import IdMint
from tests.beanstalkd import Beanstalkd, free_port
from tests.machines.broker import FakeBroker
from tests.machines.server import FakeServer

MINT = IdMint()
ALL = 1_000_000


class Site:
    """A queue in memory with a fake beanstalkd, and a clock that is turned by hand."""

    def __init__(self, with_broker: bool = True) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.server = FakeServer(self.clock)
        self.broker = FakeBroker(self.server)
        self.queue = KQueue(
            store=self.store, broker=self.broker if with_broker else None, prefix="p.", max_crashes=2
        )
        self.queue.open()

    def add(self, type: str = "t", ttr: float = 60.0, **fields: object) -> str:
        """A row as the store keeps it, ready and put now; returns its id."""
        [job_id] = MINT.make(1)
        now = self.clock.time()
        row = Row(job_id, type, b"1", "json", 100, State.READY, 0.0, now, ttr, created_at=now, put_at=now)
        self.store.add([row._replace(**fields)])
        return job_id

    def claim(self, job_id: str, type: str = "t", alone: bool = False) -> bool:
        limits = Budget(1, job_s={type: 0.0})
        [owner] = MINT.make(1)
        now = self.clock.time()
        return bool(self.store.claim(Selection((type,), (job_id,)), limits, owner, now, alone).rows)

    def put(self, job_id: str) -> None:
        """The pointer that the row says it has."""
        [row] = self.store.get([job_id])
        assert row.put_at is not None
        delay = max(0.0, row.run_at - self.clock.time())
        self.broker.put([(Pointer(row.type, row.priority, row.put_at, (job_id,)), delay)])

    def findings(self, limit: int = ALL) -> list[Finding]:
        return list(self.queue.findings(limit))

    def only(self) -> Finding:
        [finding] = self.findings()
        return finding

    def rows(self) -> dict[str, Row]:
        rows = [row for state in State for row in self.store.find(None, state, None, ALL)]
        return {row.id: row for row in rows}

    def entries(self) -> list[tuple[object, ...]]:
        return [(one.id, one.tube, one.priority, one.body, one.state, one.until) for one in self.server.items()]


class Past(NamedTuple):
    """What became of one job before the dry run. Times are seconds from then."""

    type: str
    priority: int
    run_at: float
    put_at: float | None
    has_pointer: bool
    ttr: float
    #: Claimed a while ago: not, among others, or alone.
    claimed: str
    crashes: int


PASTS = st.builds(
    Past,
    st.sampled_from("tu"),
    st.sampled_from([0, 5, 9]),
    st.sampled_from([-100.0, -100.0, -100.0, -20.0, -4.0, 30.0, 5000.0]),
    st.sampled_from([None, -200.0, -6.0, -3.0]),
    st.booleans(),
    st.sampled_from([10.0, 1000.0]),
    st.sampled_from(["no", "among others", "alone"]),
    st.integers(0, 1),
)
#: Seconds before the dry run that jobs were claimed.
CLAIMED_S = 50.0


def live_through(site: Site, pasts: Sequence[Past]) -> None:
    now = site.clock.time() + CLAIMED_S
    ids = []
    for past in sorted(pasts, key=lambda one: one.put_at or 0.0):
        begun = now - CLAIMED_S
        state = State.DELAYED if now + past.run_at > begun else State.READY
        put_at = None if past.put_at is None else now + past.put_at
        fields = {"state": state, "run_at": now + past.run_at, "put_at": put_at, "crashes": past.crashes}
        job_id = site.add(past.type, past.ttr, priority=past.priority, **fields)
        if past.claimed != "no":
            site.claim(job_id, past.type, alone=past.claimed == "alone")
        elif past.has_pointer and put_at is not None:
            ids.append(job_id)
    for job_id in ids:
        site.put(job_id)
    site.clock.advance(CLAIMED_S)


def repairs(findings: Sequence[Finding]) -> Counter[str]:
    return Counter(finding.repair.value for finding in findings)


def counted(report: SweepReport) -> Counter[str]:
    """A sweep's report in the dry run's words."""
    return +Counter(
        {
            Repair.MAKE_READY.value: report.promoted,
            Repair.TAKE_BACK.value: report.recovered,
            Repair.END_DEAD.value: report.dead,
            Repair.PUT_POINTER.value: report.put,
            Repair.BURY_ENTRY.value: report.foreign_pointers,
        }
    )


def named(findings: Sequence[Finding], repair: Repair) -> set[str | None]:
    return {finding.job_id for finding in findings if finding.repair == repair}


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(pasts=st.lists(PASTS, min_size=1, max_size=12), with_broker=st.sampled_from([True, True, False]))
def test_a_sweep_does_what_its_dry_run_said_and_the_dry_run_nothing(pasts: list[Past], with_broker: bool) -> None:
    site = Site(with_broker)
    live_through(site, pasts)
    before, entries, pulse = site.rows(), site.entries(), site.store.pulse()

    findings = site.findings()

    assert (site.rows(), site.entries(), site.store.pulse()) == (before, entries, pulse)
    assert site.store.take_sweep(site.clock.time(), 15), "the dry run took the sweep"
    report = site.queue.sweep()
    assert repairs(findings) == counted(report)
    after = site.rows()
    states = {job_id: (row.state, after[job_id].state) for job_id, row in before.items()}
    changed = {job_id: states[job_id] for job_id in states if len(set(states[job_id])) > 1}
    assert {
        Repair.MAKE_READY: named(findings, Repair.MAKE_READY),
        Repair.TAKE_BACK: named(findings, Repair.TAKE_BACK),
        Repair.END_DEAD: named(findings, Repair.END_DEAD),
        Repair.PUT_POINTER: named(findings, Repair.PUT_POINTER),
    } == {
        Repair.MAKE_READY: {one for one, (was, _) in changed.items() if was == State.DELAYED},
        Repair.TAKE_BACK: {one for one, two in changed.items() if two == (State.RUNNING, State.READY)},
        Repair.END_DEAD: {one for one, (_, now) in changed.items() if now == State.DEAD},
        Repair.PUT_POINTER: {row.id for row in after.values() if row.put_at not in {None, before[row.id].put_at}},
    }
    assert site.findings() == []


# -- why -----------------------------------------------------------------------------------------------------


def test_a_due_job_is_made_ready() -> None:
    site = Site()
    job_id = site.add(state=State.DELAYED, run_at=site.clock.time() + 60)
    site.put(job_id)
    site.clock.advance(240)
    assert site.only() == Finding(Repair.MAKE_READY, "due for 3 min", "t", job_id)


@pytest.mark.parametrize(
    ("alone", "crashes", "repair", "blame"),
    [
        (False, 0, Repair.TAKE_BACK, "it did not run alone: it is suspected, not blamed"),
        (True, 0, Repair.TAKE_BACK, "it ran alone: crash 1 of 2"),
        (True, 1, Repair.END_DEAD, "it ran alone: crash 2 of 2"),
        (False, 1, Repair.TAKE_BACK, "it did not run alone: it is suspected, not blamed"),
    ],
)
def test_a_lease_that_ran_out_names_its_process_and_who_is_blamed(
    alone: bool, crashes: int, repair: Repair, blame: str
) -> None:
    site = Site(with_broker=False)
    job_id = site.add(crashes=crashes, ttr=30.0)
    assert site.claim(job_id, alone=alone)
    site.clock.advance(30 + 12)
    finding = site.only()
    assert (finding.repair, finding.job_id) == (repair, job_id)
    assert re.fullmatch(rf"lease of process \d+ on this host ran out 12 s ago; {blame}", finding.why)


def test_a_lease_of_another_host_is_said_to_be() -> None:
    site = Site(with_broker=False)
    job_id = site.add(ttr=10.0)
    limits = Budget(1, job_s={"t": 0.0})
    owner = "1k818mlne0000" + "----" + "00017" + "aefk6p"
    for tag, said in [("0000", "process 39 on another host"), ("?", "its worker")]:
        site.store.claim(Selection(("t",)), limits, owner.replace("----", tag), site.clock.time(), False)
        site.clock.advance(20)
        assert site.only().why.startswith(f"lease of {said} ran out 10 s ago")
        site.queue.sweep()
    assert site.queue.get_job(job_id) is not None


def test_what_is_taken_back_wants_a_pointer_too() -> None:
    site = Site()
    job_id = site.add(ttr=10.0)
    assert site.claim(job_id)
    site.clock.advance(10)
    taken, put = site.findings()
    assert taken.repair == Repair.TAKE_BACK
    assert put == Finding(Repair.PUT_POINTER, "taken back from its worker: no pointer yet", "t", job_id)


def test_a_job_that_was_added_without_a_broker_wants_its_first_pointer() -> None:
    site = Site()
    site.add(put_at=None)
    site.clock.advance(7200)
    assert site.only().why == "due for 2 h, no pointer yet: the broker did not answer, or the delay was long"


def test_a_delayed_job_near_its_time_wants_its_first_pointer() -> None:
    site = Site()
    site.add(state=State.DELAYED, run_at=site.clock.time() + 4000, put_at=None)
    assert site.findings() == []
    site.clock.advance(3960)
    finding = site.only()
    assert finding.repair == Repair.PUT_POINTER
    assert re.fullmatch(r"delayed until \d{4}-\d\d-\d\d \S+: due in 40 s, no pointer yet", finding.why)


def test_an_empty_tube_shows_what_is_lost() -> None:
    site = Site()
    job_id = site.add()
    site.clock.advance(GRACE_S - 1)
    assert site.findings() == []  # its put may be under way
    site.clock.advance(1)
    assert site.only() == Finding(
        Repair.PUT_POINTER, "its pointer was put 5 s ago and is lost: nothing in its tube is ready", "t", job_id
    )


def test_a_head_that_comes_after_shows_what_is_lost() -> None:
    site = Site()
    lost = site.add(priority=7)
    site.clock.advance(200)
    site.put(site.add(priority=1000))
    site.clock.advance(4)
    finding = site.only()
    assert finding.job_id == lost
    assert finding.why == (
        "its pointer was put 3 min ago and is lost: what its tube would serve next (priority 1000, put 4 s ago)"
        " comes after it (priority 7)"
    )


def test_a_job_that_merely_waits_is_no_finding() -> None:
    site = Site()
    for _ in range(3):
        site.put(site.add())
        site.clock.advance(1)
    site.clock.advance(1_000_000)
    assert site.findings() == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (172_800, "2 days"),
    ],
)
def test_a_span_is_one_number_and_its_unit(seconds: float, said: str) -> None:
    assert span(seconds) == said


# -- its bounds ----------------------------------------------------------------------------------------------


def test_each_kind_is_cut_off_and_says_so() -> None:
    site = Site()
    for number in range(5):
        site.add(state=State.DELAYED, run_at=site.clock.time() + 1)
        site.add(put_at=None)
        site.add(type=f"tube{number}")
        assert site.claim(site.add("held", ttr=1.0), "held")
    site.clock.advance(10)
    findings = site.findings(limit=2)
    rest = [finding for finding in findings if finding.job_id is None]
    kinds = [Repair.MAKE_READY, Repair.TAKE_BACK, Repair.PUT_POINTER, Repair.PUT_POINTER]
    assert rest == [Finding(kind, "there are more than 2; a higher limit shows them") for kind in kinds]
    assert len(findings) == 4 * (2 + 1)


def test_as_many_as_the_limit_is_not_more() -> None:
    site = Site()
    ids = {site.add(state=State.DELAYED) for _ in range(3)}
    assert named(site.findings(limit=3), Repair.MAKE_READY) == ids


@pytest.mark.parametrize("limit", [0, -1, 1.5, "3"])
def test_a_bad_limit_is_refused_at_once(limit: object) -> None:
    with pytest.raises((ValueError, TypeError), match="limit"):
        Site().queue.findings(limit)  # type: ignore[arg-type]


# -- a real file and a real beanstalkd -----------------------------------------------------------------------


def test_a_file_is_left_as_it_is(tmp_path: Path) -> None:
    clock = ManualClock()
    path = tmp_path / "jobs.db"
    store = SqliteStore(path, clock=clock)
    with KQueue(store=store, broker=f"beanstalk://127.0.0.1:{free_port()}") as queue:
        queue.add_jobs("t", range(3), ttr=10)
        queue.add_job("t", "later", delay=5)
        store.claim(Selection(("t",)), Budget(1, job_s={"t": 0.0}), MINT.make(1)[0], clock.time(), True)
        clock.advance(20)
        outside = sqlite3.connect(path)
        before = (list(outside.iterdump()), outside.execute("PRAGMA data_version").fetchone())
        with pytest.raises(BrokerUnavailable):
            list(queue.findings())
        assert (list(outside.iterdump()), outside.execute("PRAGMA data_version").fetchone()) == before
        outside.close()


def test_a_broker_that_is_down_is_said_after_what_the_store_knows() -> None:
    site = Site()
    lost, due, unput = site.add(), site.add(state=State.DELAYED), site.add(put_at=None)
    site.clock.advance(10)
    site.server.is_down = True
    seen = []
    with pytest.raises(BrokerUnavailable):
        for finding in site.queue.findings():
            seen.append((finding.repair, finding.job_id))
    assert seen == [(Repair.MAKE_READY, due), (Repair.PUT_POINTER, unput)]
    site.server.is_down = False
    assert lost in named(site.findings(), Repair.PUT_POINTER)


@pytest.mark.usefixtures("rings_at_once")
def test_a_stranger_is_found_and_stays_where_it_is(tmp_path: Path, beanstalkd: Beanstalkd) -> None:
    clock = ManualClock()
    queue = KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock), broker=beanstalkd.url)
    queue.add_job("t")
    with queue, beanstalkd.client(queue.prefix + "t") as foreign:
        stranger = foreign.put(b"garbage", priority=0)
        before = queue.broker.depths(["t"])
        clock.advance(60)
        assert list(queue.findings()) == [Finding(Repair.BURY_ENTRY, STRANGER, "t")]
        assert queue.broker.depths(["t"]) == before
        seen = foreign.stats_job(stranger)
        assert (seen["state"], seen["reserves"], seen["buries"]) == ("ready", 0, 0)
        assert queue.sweep().foreign_pointers == 1
        assert list(queue.findings()) == []


def test_strangers_before_a_first_put_are_found_and_counted() -> None:
    """The tube holds no ready job of ours: the sweep looks at it only because it is about to put one there."""
    site = Site()
    site.add(state=State.DELAYED, run_at=site.clock.time() + 20, put_at=None)
    site.server.put(site.broker.tube("t"), 0, 0.0, b"garbage")
    findings = site.findings()
    assert repairs(findings) == {"put pointer": 1, "bury entry": 1}
    assert repairs(findings) == counted(site.queue.sweep())


# -- its cost ------------------------------------------------------------------------------------------------


def test_times_that_lie_ahead_are_found_and_not_changed() -> None:
    site = Site()
    site.clock.jump(40)
    waits, delayed = site.add(), site.add(state=State.DELAYED, delay=60.0, run_at=site.clock.time() + 60)
    site.store.pause("t", site.clock.time())
    site.clock.jump(-40)
    before = site.rows()
    found = {(one.job_id, one.why) for one in site.findings() if one.repair is Repair.SET_TIME_RIGHT}
    assert found == {
        (waits, f"a time of the job {waits} lies 40 s ahead: the store's clock was ahead"),
        (delayed, f"a time of the job {delayed} lies 100 s ahead: the store's clock was ahead"),
        (None, "a time of the pause t lies 40 s ahead: the store's clock was ahead"),
    }
    assert site.rows() == before
    assert site.queue.sweep().redated == 3
    assert not [one for one in site.findings() if one.repair is Repair.SET_TIME_RIGHT]


@pytest.mark.parametrize(
    ("statement", "index", "terms"),
    [
        (sql.FIND_DUE, "kqueue_jobs_delayed", "(run_at<?)"),
        (sql.FIND_ABANDONED, "kqueue_jobs_lease", "(ttr=? AND lease_until<?)"),
    ],
)
def test_a_look_reads_a_range_of_an_index(tmp_path: Path, statement: str, index: str, terms: str) -> None:
    path = tmp_path / "jobs.db"
    store = SqliteStore(path)
    store.open()
    store.close()
    outside = sqlite3.connect(path)
    steps = [step for *_, step in outside.execute(f"EXPLAIN QUERY PLAN {statement}", (0.0, 9))]
    outside.close()
    assert len(steps) == 1
    assert f"USING INDEX {index} {terms}" in steps[0]
