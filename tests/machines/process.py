"""A process of the model: a KQueue whose every call on the store and the broker can be made to fail or to kill it.

A process that was killed does nothing any more: each later call raises :class:`Killed` before its effect, so what
the code does to clean up on its way out changes nothing, as with a real SIGKILL.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple, TypeVar, cast

from kqueue import KQueue
from kqueue.assembly import assemble
from kqueue.contracts.store import JobStore
from kqueue.model.errors import AddFailed, StoreUnavailable
from kqueue.model.job import Row
from kqueue.system.clock import Clock
from tests.machines.broker import FakeBroker
from tests.machines.ledger import Ledger, Witness
from tests.machines.rings import Rings
from tests.machines.server import FakeServer, Outage

T = TypeVar("T")

#: One short prefix, so that a failure shows the same tubes each time.
PREFIX = "m."
#: What a process may ask without a round trip.
NO_CALLS = frozenset({"now", "address"})


class Killed(BaseException):
    """The process is dead."""


class Fate(Enum):
    """What befalls one call."""

    FAILS_BEFORE = Outage.BEFORE
    FAILS_AFTER = Outage.AFTER
    FAILS_LATE = Outage.LATE
    KILLED_BEFORE = "killed before the effect"
    KILLED_AFTER = "killed after the effect"
    #: Something else happens between the last call and this one; see ``Process.meanwhile``.
    MEANWHILE = "meanwhile"


class Plan(NamedTuple):
    """Which call of a step it befalls."""

    #: The store's method, or ``broker.`` and the broker's.
    call: str
    #: Calls of that name that are spared before.
    skip: int
    fate: Fate


class Process:
    """One worker or producer. ``queue`` is a real KQueue."""

    def __init__(
        self, name: str, store: JobStore, server: FakeServer | None, ledger: Ledger, clock: Clock, **options: Any
    ) -> None:
        """Without a ``server`` the store dispatches."""
        self.name = name
        self.ledger = ledger
        self.alive = True
        #: Whether a store call failed since the last :meth:`plan`.
        self.store_failed = False
        #: What other processes do before a call whose fate is ``MEANWHILE``.
        self.meanwhile: Callable[[], None] = lambda: None
        self._store = store
        self._server = server
        self._plans: list[Plan] = []
        self._calls: Counter[str] = Counter()
        self._late: list[Callable[[], object]] = []
        witnessed = cast(JobStore, WitnessedStore(self, Witness(store, ledger, name)))
        self.broker = None if server is None else FakeBroker(server, self.to_broker)
        parts = assemble(witnessed, self.broker, clock=clock, prefix=PREFIX, logger=quiet(), **options)
        self.rings = cast(Rings, parts.doorbell._ringing.get())
        self.queue = KQueue.from_parts(parts)
        self.queue.open()

    def plan(self, plans: Sequence[Plan]) -> None:
        """What befalls the calls from now on."""
        self._plans = list(plans)
        self._calls.clear()
        self.store_failed = False

    def kill(self) -> None:
        """From now on it does nothing."""
        self.alive = False
        self.ledger.strike(self.name)
        if self.broker is not None:
            self.broker.hang_up()

    def catch_up(self) -> None:
        """The store does what this process gave up waiting for."""
        while self._late:
            self._late.pop(0)()
            self.ledger.strike(self.name)

    def to_store(self, name: str, effect: Callable[[], T], rows: Sequence[Row] = ()) -> T:
        """A call on the store; ``rows`` where it adds some."""
        fate = self._next_fate(name)
        if isinstance(fate, Outage):
            self.store_failed = True
            if fate is Outage.AFTER:
                effect()
            if fate is Outage.LATE:
                self._late.append(effect)
            self.ledger.strike(self.name)
            raise lost_reply(name, fate, [row.id for row in rows])
        return self._survive(fate, effect)

    def to_broker(self, name: str, effect: Callable[[], T]) -> T:
        """A call over the line to the server."""
        server = self._server
        assert server is not None
        fate = self._next_fate(f"broker.{name}")
        if isinstance(fate, Outage):
            return server.exchange(effect, fate)
        return self._survive(fate, lambda: server.exchange(effect))

    def die_if_killed(self) -> None:
        """Raises :class:`Killed` in a dead process."""
        if not self.alive:
            raise Killed(self.name)

    def _next_fate(self, call: str) -> Outage | Fate | None:
        self.die_if_killed()
        number = self._calls[call]
        self._calls[call] += 1
        fate = next((plan.fate for plan in self._plans if (plan.call, plan.skip) == (call, number)), None)
        if fate is Fate.MEANWHILE:
            self.meanwhile()
            return None
        return fate.value if fate is not None and isinstance(fate.value, Outage) else fate

    def _survive(self, fate: Outage | Fate | None, effect: Callable[[], T]) -> T:
        if fate is Fate.KILLED_BEFORE:
            self.kill()
            raise Killed(self.name)
        result = effect()
        if fate is Fate.KILLED_AFTER:
            self.kill()
            raise Killed(self.name)
        return result


class WitnessedStore:
    """The store as one process reaches it."""

    def __init__(self, process: Process, witness: Witness) -> None:
        self._process = process
        self._witness = witness

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._witness, name)
        if name in NO_CALLS:
            self._process.die_if_killed()
            return found

        def call(*args: Any, **options: Any) -> object:
            rows = args[0] if name == "add" else ()
            return self._process.to_store(name, lambda: found(*args, **options), rows)

        return call


def lost_reply(name: str, outage: Outage, added: list[str]) -> Exception:
    """What a store raises for a call of that name."""
    message = f"the model's store failed {name} {outage.value}"
    if not added:
        return StoreUnavailable(message)
    if outage is Outage.BEFORE:
        return AddFailed(message, not_taken=added)
    return AddFailed(message, unknown=added)


def quiet() -> logging.Logger:
    """A logger whose lines go nowhere: thousands of faults are met on purpose."""
    logger = logging.getLogger("tests.machines")
    logger.propagate = False
    logger.setLevel(logging.CRITICAL + 1)
    return logger
