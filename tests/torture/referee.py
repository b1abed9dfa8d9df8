"""The referee: strikes from a seed, counts what each fault may cost, then lets everything drain and looks.

What a fault may cost is read from the store just before it, while those whom it strikes stand still:

    fault                      at risk: claimed and unsettled jobs of
    kill a worker              that worker
    freeze a worker            all: frozen within a write, it locks an SQLite file for the others too
    kill and restart mongod    all: leases run out before it is back
    kill a producer            nobody
    kill and restart broker    nobody: without its pointers jobs come later, and not twice
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from kqueue import KQueue
from kqueue.ids import origin
from kqueue.job import State
from tests.torture.account import Account, Seen, reckon
from tests.torture.child import Child
from tests.torture.crowd import Crowd
from tests.torture.ledger import read
from tests.torture.plan import OPTIONS, TTR_S, TYPES
from tests.torture.servers import Servers

#: Seconds between two faults.
PAUSE_S = (0.2, 0.9)
#: Seconds that a frozen worker stays so, by TTR: enough for its lease to run out and another to take the job.
FREEZE_TTRS = (1.1, 2.5)
#: Seconds that a server stays away.
AWAY_S = (0.0, 1.5)
#: Seconds in which everything must drain once the faults have stopped.
DRAIN_S = 120.0
#: Seconds in which what stopped processes have sent to a server is done.
IN_FLIGHT_S = 0.1
#: Attempts to stop a worker that has a job in hand, and seconds between two at most.
CATCHES = 30
CATCH_S = 0.03
#: How often each fault comes in a round.
_OFTEN = {"kill worker": 3, "kill producer": 2, "freeze worker": 2, "restart broker": 2, "restart store": 1}
#: More rows than there are.
MANY = 10**6
PLACES = ("rows", "ready", "reserved", "delayed", "buried")


def torture(seconds: float, seed: int, store: str, binlog: bool) -> Account:
    """Strike for so many seconds, then drain. ``store`` is "sqlite" or "mongodb"."""
    servers = Servers(store, binlog)
    try:
        with KQueue(servers.store_url, servers.broker_url, **OPTIONS) as queue:
            crowd = Crowd(servers, seed)
            try:
                return Referee(queue, servers, crowd, seed).judge(seconds)
            finally:
                crowd.kill()
    finally:
        servers.stop()


class Referee:
    """One torture."""

    def __init__(self, queue: KQueue, servers: Servers, crowd: Crowd, seed: int) -> None:
        self._queue = queue
        self._servers = servers
        self._crowd = crowd
        self._random = Random(seed)
        #: When each frozen worker goes on, in monotonic seconds.
        self._frozen: dict[Child, float] = {}
        self._at_risk: list[tuple[str, int]] = []
        self._kills = self._freezes = self._restarts = 0
        self._faults: dict[str, Callable[[], None]] = {
            "kill worker": self._kill_worker,
            "kill producer": self._kill_producer,
            "freeze worker": self._freeze_worker,
            "restart broker": self._restart_broker,
        }
        if servers.mongod is not None:
            self._faults["restart store"] = self._restart_store

    def judge(self, seconds: float) -> Account:
        """Strike, drain, and reckon. However short the time, each kind of fault comes once."""
        until = time.monotonic() + seconds
        once = self._random.sample(list(self._faults), len(self._faults))
        for fault in once:
            self._pause(self._random.uniform(*PAUSE_S), math.inf)
            self._faults[fault]()
        for fault in self._rounds():
            if not self._pause(self._random.uniform(*PAUSE_S), until):
                break
            self._faults[fault]()
        return self._drain()

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
        assert self._servers.mongod is not None
        with self._still():
            self._at_risk += self._in_hand(None)
            self._servers.mongod.kill()
        time.sleep(self._random.uniform(*AWAY_S))
        self._servers.mongod.restart()
        self._restarts += 1

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
        crowd = self._crowd
        crowd.end(crowd.producers)
        began = time.monotonic()
        dead = 0
        while any(self._left().values()) and time.monotonic() < began + DRAIN_S:
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
            dead=dead,
            fallen=crowd.fallen,
            seconds_to_drain=round(seconds_to_drain, 1),
            left=self._left(),
            rows=frozenset(row.id for state in State for row in self._queue.store.find(None, state, None, MANY)),
        )
        return reckon(read(crowd.ledgers), seen)

    def _left(self) -> dict[str, int]:
        left = dict.fromkeys(PLACES, 0)
        left["rows"] = sum(self._queue.counts().values())
        for states in self._queue.broker.depths(TYPES).values():
            for state, entries in states.items():
                left[state] += entries
        return left
