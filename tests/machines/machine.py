"""The machine: everything that can happen to a queue, in any order, on a clock that is turned by hand.

Three real KQueue objects, as three processes, share a store and (on some worlds) a fake beanstalkd. Nothing sleeps
and no thread runs: the watchdog's part is played by the handlers that let time pass, so the same choices always
give the same run. Other processes act between any two calls of one (``Fate.MEANWHILE``) and in its handlers.

=====  ==========================================================================================================
I1     :meth:`Ledger.check`, after each step: what was committed and not rightly removed is in the store. And
       :meth:`Machine.no_payload_strays`: with its payload
I2     :meth:`Machine.teardown`: once faults stop, lease + grace + one sweep later every job has run. And
       :meth:`Machine.pointers_are_there`: without a fault, each row that was put has an entry in its tube
I3     :class:`Witness` at each claim, :meth:`Ledger.began` at each run, :meth:`Ledger.check` for the rows
I4     :class:`Witness` at each settle and renew: without the fence nothing changes, with it nothing is refused
I5     :class:`Witness` at each claim, :meth:`Ledger.check` for the rows
I6     :meth:`Ledger.began` at each run, :meth:`Ledger.check` for the rows
I7     :meth:`Ledger.began`: each run that follows an unsettled one is matched to a fault that struck just that
       claim. No fault of the broker is one, so none of them may cause a duplicate
I8     :class:`Witness`: each row that goes, and each that becomes dead, has its reason
I9     :meth:`Machine.teardown`: no row and no entry is left
I10    :meth:`Ledger.check`: what is done has the result of the claim that ended it, and nothing else has one
=====  ==========================================================================================================
"""

import logging
import sqlite3
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import Enum, auto
from pathlib import Path
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kqueue import AddFailed, BrokerError, KQueueError, LeaseLost, Priority
from kqueue.contracts.budget import Budget
from kqueue.contracts.rules import GRACE_S
from kqueue.contracts.runs import LeaseKey, Selection
from kqueue.contracts.settlements import Delete, Retry, Unget
from kqueue.contracts.store import JobStore
from kqueue.loops.watchdog import Watched
from kqueue.model import tubes
from kqueue.model.job import Row, State
from kqueue.model.retry import LAST_BACKOFF_S
from kqueue.stores.memory.store import MemoryStore
from kqueue.stores.sqlite.payloads import MOST_IN_ROW
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import Clock, ManualClock
from tests.machines.acts import ASKED_RETRY_S, FAULTY, Act, Exited, Interrupted, Stage
from tests.machines.broker import pointer_of
from tests.machines.ledger import Key, Ledger, Witness
from tests.machines.process import PREFIX, Fate, Killed, Plan, Process
from tests.machines.rings import Rings
from tests.machines.server import BURIED, DELAYED, READY, RESERVED, Connection, FakeServer
from tests.stores.stray_payloads import stray_payloads

TYPES = ("mail", "resize")
INTERVAL_S = 15.0
#: Of what a handler raises; a retry that it asks for waits longer, so that both kinds come.
RETRY_S = 0.0
MAX_TRIES = 2
MAX_CRASHES = 2
#: Leases, in seconds.
TTRS = (2, 10, 70)
ENDED = frozenset({State.DEAD, State.DONE})
#: Rounds of one sweep interval in which everything that waits has run, once faults have stopped. The second is for
#: rows that stood behind an entry whose own job was gone: the head rule sees them once that one is deleted.
ROUNDS = 2


class Settling(Enum):
    """What a holder does that was frozen."""

    DELETE = auto()
    RETRY = auto()
    UNGET = auto()
    RENEW = auto()


#: Some fast jobs first, so that the window has grown when it comes to the others; and failures enough to die.
ACTS = st.builds(
    lambda fast, acts: [Act.DELETE] * fast + acts,
    st.integers(0, 3),
    st.lists(st.sampled_from([*Act, *[Act.RAISE] * 5]), max_size=8),
)
#: The calls of a run: some come often, and matter most.
RUNS = (
    *("claim", "claim", "settle", "settle", "settle", "settle_and_claim", "settle_and_claim"),
    *("renew", "claimed_by", "broker.reserve", "broker.settle"),
)
#: The calls of a sweep.
SWEEPS = ("take_sweep", "promote", "recover", "find_lost", "mark", "find_unput", "broker.peek", "broker.put")


def faults(*calls: str) -> st.SearchStrategy[list[Plan]]:
    """Nothing, or one thing that befalls one of these calls."""
    plan = st.builds(Plan, st.sampled_from(calls), st.integers(0, 2), st.sampled_from(Fate))
    return st.just([]) | plan.map(lambda one: [one])


PROCESS = st.integers(0, 2)
ANY = st.integers(0, 1000)
#: A well-formed id that no job has.
MISSING = "0" * 28


class NoWatchdog:
    """In the place of :class:`kqueue.loops.watchdog.Watchdog`, whose thread would look at any moment."""

    def __init__(self, watched: Watched, clock: Clock, logger: logging.Logger) -> None:
        pass

    def wake(self, *, alone: bool = False) -> None:
        """See :meth:`tests.machines.acts.Stage.work`, which does its part."""

    def close(self) -> None:
        """Nothing."""


class Machine(RuleBasedStateMachine):
    """One world; see the module's text."""

    def __init__(self, kind: str) -> None:
        """``kind``: ``memory`` or ``sqlite``, then ``+fake`` for a broker."""
        super().__init__()
        self.clock = ManualClock()
        self.ledger = Ledger(MAX_TRIES, MAX_CRASHES)
        self.server = FakeServer(self.clock, max_job_size=220) if kind.endswith("+fake") else None
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "jobs.db"
        self.memory = MemoryStore(self.clock) if kind.startswith("memory") else None
        self.stores: list[JobStore] = []
        self.store = self.open_store()
        #: What the tubes' names begin with.
        self.tubes = tubes.beginning(PREFIX, self.store.identity())
        self.births = 0
        self.had_fault = False
        self.frozen: deque[tuple[Witness, Row]] = deque()
        self.strangers: list[Connection] = []
        # A thread that looks at a manual clock would come at any moment: handlers call on the batch instead.
        self.no_watchdog = patch("kqueue.loops.dispatcher.Watchdog", NoWatchdog)
        self.no_watchdog.start()
        self.rings_by_hand = patch("kqueue.dispatch.doorbell.Ringing", Rings)
        self.rings_by_hand.start()
        self.processes: list[Process] = []
        self.stage = Stage(self.ledger, self.clock, self.processes)
        self.processes += [self.start_process(number) for number in range(3)]

    def open_store(self) -> JobStore:
        store = self.memory or SqliteStore(self.path, synchronous="OFF", busy_timeout=0, clock=self.clock)
        store.open()
        self.stores.append(store)
        return store

    def start_process(self, number: int) -> Process:
        self.births += 1
        process = Process(
            f"{number}#{self.births}",
            self.open_store(),
            self.server,
            self.ledger,
            self.clock,
            retry_delay=RETRY_S,
            max_tries=MAX_TRIES,
            max_crashes=MAX_CRASHES,
            sweep_interval=INTERVAL_S,
        )
        process.meanwhile = lambda: self.stage.others_act(process)
        for type in TYPES[: 1 if number == 2 else 2]:  # one process does not know every type
            if (number, type) == (1, "mail"):  # and one takes several jobs of a type in one call
                process.queue.add_handler(type, lambda jobs: self.stage.handle_batch(process, jobs), batch=3)
            else:
                process.queue.add_handler(type, lambda job: self.stage.handle(process, job))
        return process

    @initialize(jobs=st.integers(0, 30), ttr=st.sampled_from(TTRS))
    def begin(self, jobs: int, ttr: float) -> None:
        """Some work is there, and windows have grown."""
        self.processes[0].queue.add_jobs("mail", range(jobs), ttr=ttr)

    # -- steps -------------------------------------------------------------------------------------------

    @rule(
        by=PROCESS,
        type=st.sampled_from(TYPES),
        jobs=st.integers(1, 7),
        priority=st.sampled_from([0, Priority.HIGH, Priority.NORMAL, Priority.NORMAL, 2**32 - 1]),
        delay=st.sampled_from([0, 0, 0, 0.5, 20, 5000]),
        ttr=st.sampled_from(TTRS),
        keep=st.sampled_from([None, None, 0.5, 100]),
        plans=faults("add", "broker.put"),
    )
    def add(
        self,
        by: int,
        type: str,
        jobs: int,
        priority: int,
        delay: float,
        ttr: float,
        keep: float | None,
        plans: list[Plan],
    ) -> None:
        # Every fourth stands apart from its row.
        payloads = [
            b"\x00\r\n%d" % number if number % 2 else {"n": number, "filling": "x" * (number % 4 * MOST_IN_ROW)}
            for number in range(jobs)
        ]
        with self.attempt(by, plans) as process:
            try:
                ids = process.queue.add_jobs(
                    type, payloads, priority=priority, delay=delay, ttr=ttr, keep_done=keep
                )
            except AddFailed as error:
                ids = list(error.taken)
                self.ledger.require(not set(error.not_taken) & set(self.ledger.added), "I1", "not_taken, yet there")
            self.ledger.acknowledged.update(ids)

    @precondition(lambda self: self.server)
    @rule(by=PROCESS, what=st.sampled_from(["late", "late", "at once", "sent", "lost"]), plans=faults("broker.put"))
    def rings_come(self, by: int, what: str, plans: list[Plan]) -> None:
        """The sender of a process gets no time, or gets it again; or dies, with what it was to send."""
        rings = self.processes[by].rings
        match what:
            case "sent":
                with self.attempt(by, plans):
                    rings.flush()
            case "lost":
                self.had_fault |= bool(rings.waiting())
                rings.lose()
            case _:
                rings.are_late = what == "late"

    @rule(by=PROCESS, limit=st.none() | st.integers(0, 9), script=ACTS)
    def run(self, by: int, limit: int | None, script: list[Act]) -> None:
        self.run_among_faults(by, limit, script, [])

    @rule(by=PROCESS, limit=st.none() | st.integers(0, 9), script=ACTS, plans=faults(*RUNS, *SWEEPS))
    def run_among_faults(self, by: int, limit: int | None, script: list[Act], plans: list[Plan]) -> None:
        self.stage.script = deque(script)
        self.had_fault |= not FAULTY.isdisjoint(script)
        started = len(self.ledger.started)
        with self.attempt(by, plans) as process:
            report = process.queue.run_jobs(limit)
            ends = report.deleted + report.retried + report.ungot + report.dead + report.lost_lease
            self.ledger.require(report.count == ends, "report", f"{report} does not add up")
            own = len(self.ledger.started) - started
            self.ledger.require(report.count <= own, "report", f"{report}, and {own} began")
            self.ledger.require(
                limit is None or report.count <= limit, "report", f"{report} for a limit of {limit}"
            )
        self.stage.script.clear()

    @rule(by=PROCESS, plans=faults(*SWEEPS))
    def sweep(self, by: int, plans: list[Plan]) -> None:
        with self.attempt(by, plans) as process:
            process.queue.sweep()

    @rule(
        by=PROCESS,
        what=st.sampled_from(["delete", "delete", "retry", "purge"]),
        which=ANY,
        plans=faults("delete", "revive", "purge", "broker.put", "broker.drain"),
    )
    def operator_does(self, by: int, what: str, which: int, plans: list[Plan]) -> None:
        """What a command line does from outside."""
        ledger, told = self.ledger, all(plan.fate is not Fate.MEANWHILE for plan in plans)
        dead = [job_id for job_id in ledger.added if job_id in ledger.dead]  # in the order added
        ids = dead if dead and what == "retry" else list(ledger.added)
        job_id = ids[which % len(ids)] if ids else MISSING
        there, was_dead = job_id in ledger.waiting(), job_id in ledger.dead
        with self.attempt(by, plans) as process:
            if what == "purge":
                process.queue.purge_jobs(TYPES[which % 2])
            elif what == "retry":
                said = process.queue.retry_job(job_id, "once more")
                ledger.require(said == was_dead or not told, "I8", f"the retry of {job_id} says {said}")
            else:
                ledger.unwanted.add(job_id)
                said = process.queue.delete_job(job_id)
                ledger.require(said == there or not told, "I5", f"the delete of {job_id} says {said}")
                ledger.require(job_id not in ledger.waiting(), "I5", f"{job_id} was deleted and is not")

    @rule(by=PROCESS, type=st.sampled_from(TYPES), jobs=st.integers(0, 3), alone=st.booleans())
    def worker_freezes(self, by: int, type: str, jobs: int, alone: bool) -> None:
        """It has claimed ``jobs`` jobs and does nothing for now; with none, it is killed."""
        if not jobs:
            self.processes[by].kill()
            self.processes[by] = self.start_process(by)
            return
        self.births += 1
        name = f"frozen#{self.births}"
        witness = Witness(self.store, self.ledger, name)
        claim = witness.claim(Selection((type,)), Budget(jobs, job_s={type: 0}), name, self.clock.time(), alone)
        self.frozen.extend((witness, row) for row in claim.rows)
        self.ledger.strike(name)
        self.had_fault |= bool(claim.rows)

    @precondition(lambda self: self.frozen)
    @rule(how=st.sampled_from(Settling), which=ANY)
    def worker_thaws(self, how: Settling, which: int) -> None:
        """It goes on where it was, however late."""
        self.frozen.rotate(which)
        witness, row = self.frozen[0]
        now, key = self.clock.time(), Key(row.id, row.fence)
        if how is Settling.RENEW:
            witness.renew([LeaseKey(row.id, row.fence, row.ttr)], now)
        elif how is Settling.DELETE:
            self.ledger.finished.add(key)
            witness.settle([Delete(*key)], now)
        elif how is Settling.RETRY:
            witness.settle([Retry(*key, now + ASKED_RETRY_S, "thawed", None)], now)
        else:
            witness.settle([Unget(*key, now, None, None, started=True)], now)

    @rule(seconds=st.sampled_from([0.05, 1, 6, 16, 61, 75, 3700]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for process in self.processes:
            process.catch_up()

    @rule(seconds=st.sampled_from([-3600, -60, -6, 6, 60, 3600]))
    def wall_clock_jumps(self, seconds: float) -> None:
        self.clock.jump(seconds)
        self.had_fault = True

    # -- the server's faults -----------------------------------------------------------------------------

    @precondition(lambda self: self.server)
    @rule(what=st.sampled_from(["forgets", "keeps", "late", "ttr", "no ttr", "down", "full", "up", "up"]))
    def server_has_a_fault(self, what: str) -> None:
        server = self.the_server()
        self.had_fault = True
        match what:
            case "forgets" | "keeps":
                server.restart(binlog=what == "keeps")
            case "late":
                server.catch_up()
            case "ttr" | "no ttr":
                server.fires_ttr = what == "ttr"
            case "down":
                server.is_down = True
            case "full":
                server.refuses_puts = True
            case _:
                server.is_down = server.refuses_puts = False

    @precondition(lambda self: self.server)
    @rule(what=st.sampled_from(["put", "old", "delete", "bury", "reserve", "go", "pause", "strand"]), which=ANY)
    def stranger_does(self, what: str, which: int) -> None:
        server = self.the_server()
        self.had_fault = True
        tube = self.tubes + TYPES[which % 2]
        items = server.items()
        item = items[which % len(items)] if items else None
        connection = server.connect()
        if what in {"put", "old"} and server.refuses_puts:
            return
        if what == "put":
            server.put(tube, which, 0, b"garbage")
        elif what == "pause":
            server.pause(tube, which)
        elif what == "go":
            for stranger in self.strangers:
                server.hang_up(stranger)
            self.strangers.clear()
        elif item is not None and what == "old":
            server.put(item.tube, item.priority, 0, item.body)
        elif item is not None and what == "delete":
            server.delete(item.id)
        elif item is not None and what == "strand":
            server.strand(item.id)
        elif item is not None and server.reserve_id(item.id, connection):
            if what == "bury":
                server.bury(item.id, connection)
            self.strangers.append(connection)
            return
        server.hang_up(connection)

    # -- between steps -----------------------------------------------------------------------------------

    @contextmanager
    def attempt(self, by: int, plans: list[Plan]) -> Iterator[Process]:
        """A step of one process. What it raises must have a fault for its cause; if it dies, another is started."""
        process = self.processes[by]
        process.plan(plans)
        self.had_fault |= bool(plans)
        try:
            yield process
        except Killed:
            assert not process.alive
        except (Exited, Interrupted):
            pass
        except KQueueError as error:
            excused = self.had_fault if isinstance(error, BrokerError) else process.store_failed
            self.ledger.require(excused and not isinstance(error, LeaseLost), "error", repr(error))
        process.plan([])
        if not process.alive:
            self.processes[by] = self.start_process(by)

    @invariant()
    def ledger_agrees(self) -> None:
        self.ledger.check(self.store)

    @invariant()
    def pointers_are_there(self) -> None:
        """Where nothing has failed yet, each row that waits and was put has an entry, or is to be rung for."""
        if self.server is None or self.had_fault:
            return
        rung = self.ids_in_tubes(self.server)
        rung.update(*(process.rings.waiting() for process in self.processes))
        for row in self.rows():
            if row.state in {State.READY, State.DELAYED} and row.put_at is not None:
                assert row.id in rung, f"I2: {row} has no pointer"

    def teardown(self) -> None:
        """Faults stop; then all that is left runs."""
        try:
            if not self.ledger.violations:
                self.stop_faults()
                self.everything_runs()
                self.nothing_is_left()
        finally:
            self.no_watchdog.stop()
            self.rings_by_hand.stop()
            for store in self.stores:
                store.close()
            self.folder.cleanup()

    def stop_faults(self) -> None:
        for process in self.processes:
            process.catch_up()
        self.frozen.clear()
        if self.server is not None:
            self.server_has_a_fault("up")
            self.server_has_a_fault("late")
            self.stranger_does("go", 0)
            self.server.fires_ttr = True
            for type in TYPES:
                self.server.pause(self.tubes + type, 0)
                self.server.kick(self.tubes + type)
        for process in self.processes:
            process.rings.are_late = False
            process.rings.flush()

    def everything_runs(self) -> None:
        """I2, I8: lease + grace + one sweep after the last fault."""
        times = [row.lease_until or row.run_at for row in self.rows() if row.state not in ENDED]
        times += [row.put_at for row in self.rows() if row.put_at is not None]
        self.clock.advance(max([0.0, *(time - self.clock.time() for time in times)]) + GRACE_S + INTERVAL_S)
        self.processes[0].queue.sweep()
        self.all_have_pointers()
        for _ in range(ROUNDS):
            self.all_run()
            self.clock.advance(INTERVAL_S)
        left = {row.id for row in self.rows()}
        ended = self.ledger.dead.union(self.ledger.done)
        assert left == ended, f"I2: {self.store.get(sorted(left - ended))} never ran"

    def all_have_pointers(self) -> None:
        """I2, while nothing is run: each row has an entry, or stands behind what its tube would serve next."""
        if self.server is None:
            return
        rung = self.ids_in_tubes(self.server)
        heads = {type: peek.head for type, peek in self.processes[0].queue.broker.peek(TYPES).items()}
        for row in self.rows():
            head = heads[row.type]
            if row.state in ENDED or row.id in rung:
                continue
            assert row.state == State.READY and head is not None and row.put_at is not None, f"I2: {row}, {head}"
            behind = (head.priority, head.put_at - GRACE_S) <= (row.priority, row.put_at)
            assert behind, f"I2: {row} has no pointer, and {head} comes after it"

    def nothing_is_left(self) -> None:
        """I9: no row, and no entry but garbage that was buried, and what the server itself has lost track of."""
        self.no_payload_strays()
        ended = self.ledger.dead.union(self.ledger.done)
        self.ledger.unwanted |= ended
        for job_id in sorted(ended):
            assert self.processes[0].queue.delete_job(job_id)
        assert sum(self.store.counts().values()) == 0, f"I9: {self.store.counts()}"
        self.no_payload_strays()
        if self.server is None:
            return
        waits = [item.until - self.clock.time() for item in self.server.items() if item.state == DELAYED]
        self.clock.advance(max([LAST_BACKOFF_S, *waits]))  # then each process asks the broker again
        self.all_run()
        for item in self.server.items():
            garbage = item.state == BURIED and pointer_of(item.body, TYPES) is None
            stranded = item.state == RESERVED and item.holder is None
            assert garbage or stranded, f"I9: {item} stays behind"

    def no_payload_strays(self) -> None:
        """I1: each that stands apart has its job, and the other way round."""
        if self.memory is None:
            with closing(sqlite3.connect(self.path)) as connection:
                assert stray_payloads(connection) == []

    def all_run(self) -> None:
        for process in self.processes:
            process.queue.run_jobs()
            self.ledger.check(self.store)

    # -- looking -----------------------------------------------------------------------------------------

    def the_server(self) -> FakeServer:
        assert self.server is not None
        return self.server

    def rows(self) -> list[Row]:
        return self.store.get(list(self.ledger.waiting()))

    @staticmethod
    def ids_in_tubes(server: FakeServer) -> set[str]:
        pointers = [pointer_of(item.body, TYPES) for item in server.items() if item.state in {READY, DELAYED}]
        return {job_id for pointer in pointers if pointer is not None for job_id in pointer.ids}
