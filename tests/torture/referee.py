"""The referee: strikes from a seed, counts what each fault may cost, then lets everything drain and looks.

What a fault may cost is read from the store just before it, while those whom it strikes stand still:

    fault                      at risk: claimed and unsettled jobs of
    kill a worker              that worker
    freeze a worker            all: frozen within a write, it locks an SQLite file for the others too
    kill and restart mongod    all: leases run out before it is back
    freeze mongod              all, as above
    move the store's file      all: leases run out before it is back
    step the clock             all, where the store goes by the host's clock: leases run out at once, or last longer
    a signal that raises       that process: what it had in hand is given back, or its lease runs out
    of three members: kill the primary, let it step down, cut it off, or cut off both others
                               all: leases run out before there is a primary again
    copy, open or link the store's file; kill or strike a producer; kill, restart or freeze the broker
                               nobody: without its pointers jobs come later, and not twice
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random

from kqueue import KQueue, StoreError
from kqueue.model.ids import origin
from kqueue.model.job import State
from tests.torture.account import Account, Seen, reckon
from tests.torture.child import Child
from tests.torture.clocks import steps
from tests.torture.crowd import Crowd
from tests.torture.file_faults import file_faults
from tests.torture.interrupts import SIGNALS
from tests.torture.ledger import SUFFIX, Ledger, read
from tests.torture.plan import OPTIONS, TTR_S, TYPES
from tests.torture.servers import Servers
from tests.torture.set_faults import set_faults

#: Seconds between two faults.
PAUSE_S = (0.2, 0.9)
#: Seconds that a frozen worker stays so, by TTR: enough for its lease to run out and another to take the job.
FREEZE_TTRS = (1.1, 2.5)
#: Seconds that a server stays away.
AWAY_S = (0.0, 1.5)
#: Seconds without any progress after which what has not drained, once the faults have stopped, never will.
DRAIN_S = 120.0
#: Seconds in which what stopped processes have sent to a server is done.
IN_FLIGHT_S = 0.1
#: Attempts to stop a worker that has a job in hand, and seconds between two at most.
CATCHES = 30
CATCH_S = 0.03
#: How often each fault comes in a round.
_OFTEN = {"kill worker": 3, "kill producer": 2, "freeze worker": 2, "restart broker": 2, "restart store": 1}
_OFTEN |= {
    "copy": 3,
    "foreign": 1,
    "hard link": 1,
    "move": 2,
    "step clock": 2,
    "freeze broker": 1,
    "freeze store": 1,
}
_OFTEN |= {"strike worker": 4, "strike producer": 4}
_OFTEN |= {"kill primary": 2, "step down": 2, "cut off primary": 1, "cut off majority": 1}
#: More rows than there are.
MANY = 10**6
PLACES = ("rows", "ready", "reserved", "delayed", "buried")


def torture(seconds: float, seed: int, store: str, binlog: bool, faults: Sequence[str] | None = None) -> Account:
    """Strike for so many seconds, then drain. ``store`` is one of :data:`tests.torture.servers.STORES`. ``faults``:
    those that strike, by their names; all that there are for the store if None.
    """
    servers = Servers(store, binlog)
    try:
        with KQueue(servers.store_url, servers.broker_url, **OPTIONS) as queue:
            queue.counts()  # makes the store: those who take part do not
            crowd = Crowd(servers, seed)
            try:
                return Referee(queue, servers, crowd, seed, faults).judge(seconds)
            finally:
                crowd.kill()
    finally:
        servers.stop()


class Referee:
    """One torture."""

    def __init__(
        self, queue: KQueue, servers: Servers, crowd: Crowd, seed: int, faults: Sequence[str] | None = None
    ) -> None:
        self._queue = queue
        self._servers = servers
        self._crowd = crowd
        self._random = Random(seed)
        self._steps = steps(self._random)
        #: Of each fault: for who looks for the cause of a loss.
        self._ledger = Ledger(crowd.ledgers / f"referee{SUFFIX}")
        #: When each frozen worker goes on, in monotonic seconds.
        self._frozen: dict[Child, float] = {}
        self._at_risk: list[tuple[str, int]] = []
        self._has_stepped = False
        self._kills = self._freezes = self._restarts = self._strikes = 0
        self._faults: dict[str, Callable[[], None]] = {
            "kill worker": self._kill_worker,
            "kill producer": self._kill_producer,
            "freeze worker": self._freeze_worker,
            "restart broker": self._restart_broker,
            "freeze broker": self._freeze_broker,
            "strike worker": self._strike_worker,
            "strike producer": self._strike_producer,
            "step clock": self._step_clock,
        }
        if servers.mongod is not None:
            self._faults["restart store"] = self._restart_store
            self._faults["freeze store"] = self._freeze_store
        if servers.members is not None:
            self._faults |= set_faults(servers.members, self._random, self._strike_store)
        if servers.is_a_file:
            self._faults |= file_faults(servers.store_file, crowd, self._random, self._strike_store)
        if faults is not None:
            self._faults = {name: self._faults[name] for name in faults}

    def judge(self, seconds: float) -> Account:
        """Strike, drain, and reckon. However short the time, each kind of fault comes once."""
        self._crowd.await_ready()
        until = time.monotonic() + seconds
        once = self._random.sample(list(self._faults), len(self._faults))
        for fault in once:
            self._pause(self._random.uniform(*PAUSE_S), math.inf)
            self._strike(fault)
        for fault in self._rounds():
            if not self._pause(self._random.uniform(*PAUSE_S), until):
                break
            self._strike(fault)
        return self._drain()

    def _strike(self, fault: str) -> None:
        began = time.monotonic()
        self._faults[fault]()
        self._ledger.write("fault", name=fault, began=began, ended=time.monotonic())

    def _rounds(self) -> Iterator[str]:
        often = [fault for fault in self._faults for _ in range(_OFTEN[fault])]
        while True:
            yield from self._random.sample(often, len(often))

    def _pause(self, seconds: float, until: float) -> bool:
        """Wait, and let frozen workers go on when it is their time. False if the end comes first."""
        end = min(time.monotonic() + seconds, until)
        while (now := time.monotonic()) < end:
            for worker in [worker for worker, at in self._frozen.items() if at <= now]:
                self._thaw(worker)
            time.sleep(max(0.0, min([end, *self._frozen.values()]) - now))
        self._crowd.look()
        return end < until

    def _thaw(self, worker: Child) -> None:
        del self._frozen[worker]
        worker.thaw()

    # -- faults ------------------------------------------------------------------------------------------

    def _kill_worker(self) -> None:
        worker = self._random.choice(self._crowd.workers)
        self._frozen.pop(worker, None)
        self._stop_at_work(worker)
        self._at_risk += self._in_hand(worker.pid)
        self._crowd.replace(worker)
        self._kills += 1

    def _kill_producer(self) -> None:
        self._crowd.kill_producer(self._random)
        self._kills += 1

    def _freeze_worker(self) -> None:
        awake = [worker for worker in self._crowd.workers if worker not in self._frozen]
        if len(awake) < 2:
            return  # somebody has to go on
        worker = self._random.choice(awake)
        self._stop_at_work(worker)
        self._at_risk += self._in_hand(None)
        self._frozen[worker] = time.monotonic() + TTR_S * self._random.uniform(*FREEZE_TTRS)
        self._freezes += 1

    def _restart_broker(self) -> None:
        assert self._servers.beanstalkd is not None
        self._servers.beanstalkd.kill()
        time.sleep(self._random.uniform(*AWAY_S))
        self._servers.beanstalkd.restart()
        self._restarts += 1

    def _restart_store(self) -> None:
        mongod = self._servers.mongod
        assert mongod is not None

        def rest() -> None:
            time.sleep(self._random.uniform(*AWAY_S))
            mongod.restart()

        self._strike_store(mongod.kill, rest)

    def _freeze_store(self) -> None:
        mongod = self._servers.mongod
        assert mongod is not None

        def rest() -> None:
            time.sleep(TTR_S * self._random.uniform(*FREEZE_TTRS))
            mongod.thaw()

        self._strike_store(mongod.freeze, rest)

    def _strike_store(self, strike: Callable[[], None], rest: Callable[[], None]) -> None:
        """Do ``strike`` while no worker runs, then ``rest``."""
        with self._still():
            self._at_risk += self._in_hand(None)
            strike()
        rest()
        self._restarts += 1

    def _freeze_broker(self) -> None:
        assert self._servers.beanstalkd is not None
        self._servers.beanstalkd.pause()
        time.sleep(self._random.uniform(*AWAY_S))
        self._servers.beanstalkd.resume()
        self._freezes += 1

    def _step_clock(self) -> None:
        self._set_clock(next(self._steps))
        self._has_stepped = True
        self._strikes += 1

    def _set_clock(self, ahead: float) -> None:
        with self._still():
            if self._servers.is_a_file:  # MongoDB goes by its own
                self._at_risk += self._in_hand(None)
            self._servers.clock.set(ahead)

    def _strike_worker(self) -> None:
        awake = [one for one in self._crowd.workers if one not in self._frozen and one.is_ready()]
        if not awake:
            return
        worker = self._random.choice(awake)
        self._stop_at_work(worker)
        self._at_risk += self._in_hand(worker.pid)
        worker.strike(self._random.choice(SIGNALS))
        worker.thaw()
        self._strikes += 1

    def _strike_producer(self) -> None:
        ready = [producer for producer in self._crowd.producers if producer.is_ready()]
        if ready:
            self._random.choice(ready).strike(self._random.choice(SIGNALS))
            self._strikes += 1

    @contextmanager
    def _still(self) -> Iterator[None]:
        """While no worker runs."""
        awake = [worker for worker in self._crowd.workers if worker not in self._frozen]
        try:
            for worker in awake:
                worker.freeze()
            time.sleep(IN_FLIGHT_S)
            yield
        finally:
            for worker in awake:
                worker.thaw()

    def _stop_at_work(self, worker: Child) -> None:
        """SIGSTOP, while it has a job in hand if that can be: there a fault costs most."""
        for _ in range(CATCHES):
            worker.freeze()
            with suppress(StoreError):  # frozen in the middle of it, the worker may keep the store from us
                if self._in_hand(worker.pid):
                    return
            worker.thaw()
            time.sleep(self._random.uniform(0, CATCH_S))
        worker.freeze()

    def _in_hand(self, pid: int | None) -> list[tuple[str, int]]:
        """(id, fence) of what the process ``pid``, or anybody, has claimed and not settled."""
        rows = self._queue.store.find(None, State.RUNNING, None, MANY)
        return [
            (row.id, row.fence)
            for row in rows
            if row.lease_owner is not None and pid in {None, origin(row.lease_owner).pid}
        ]

    # -- the end -----------------------------------------------------------------------------------------

    def _drain(self) -> Account:
        """No more faults, and no more jobs: all must run to their end."""
        for worker in list(self._frozen):
            self._thaw(worker)
        self._set_clock(0.0)
        crowd = self._crowd
        crowd.end(crowd.producers)
        began = time.monotonic()
        dead, least, until = 0, math.inf, began + DRAIN_S
        while (left := sum(self._left().values())) and time.monotonic() < until:
            if left < least:
                least, until = left, time.monotonic() + DRAIN_S
            for job in self._queue.jobs():
                dead += self._queue.retry_job(job, "brought back by the referee")
            crowd.look()
            time.sleep(0.05)
        seconds_to_drain = time.monotonic() - began
        crowd.end(crowd.workers)
        seen = Seen(
            at_risk=tuple(self._at_risk),
            kills=self._kills,
            freezes=self._freezes,
            restarts=self._restarts,
            strikes=self._strikes,
            dead=dead,
            fallen=crowd.fallen,
            spare=self._spare(),
            seconds_to_drain=round(seconds_to_drain, 1),
            left={**self._left(), "payloads": self._servers.stray_payloads()},
            rows=frozenset(row.id for state in State for row in self._queue.store.find(None, state, None, MANY)),
        )
        return reckon(read(crowd.ledgers), seen)

    def _left(self) -> dict[str, int]:
        left = dict.fromkeys(PLACES, 0)
        left["rows"] = sum(self._queue.counts().values())
        for states in self._queue.broker.depths(TYPES).values():
            for state, entries in states.items():
                left[state] += entries
        left["delayed"] -= self._spare()
        return left

    def _spare(self) -> int:
        """Pointers that wait for a time by a clock that was ahead, and whose jobs came to their end by others."""
        if not self._has_stepped or sum(self._queue.counts().values()):
            return 0
        return sum(states.get("delayed", 0) for states in self._queue.broker.depths(TYPES).values())
