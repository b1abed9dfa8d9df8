"""How many of a type run at once in one process: the ``concurrency`` of a plain function.

Each of the loops of a process that run a bounded type holds *slots* of it, as many as it may run at once, and holds
them until it ends. A loop that gets none does not serve the type: it claims nothing of it in vain, and what it does
serve waits for nothing.
"""

import threading
from collections.abc import Callable, Mapping
from itertools import islice
from types import MappingProxyType

from kqueue.model.handlers import Handler

NOTHING: Mapping[str, Handler] = MappingProxyType({})


class Slots:
    """All of one process. Each step is atomic, and no lock guards them: a forked child can find none held."""

    def __init__(self) -> None:
        #: By type, in the order in which they were asked for: so of two that ask at once the first gets it.
        self._taken: dict[str, dict[object, None]] = {}

    def take(self, type: str, bound: int) -> object | None:
        """One of the ``bound`` slots of ``type``; None if all are taken."""
        slot, taken = object(), self._taken.setdefault(type, {})
        got = False
        try:
            taken[slot] = None
            got = slot in islice(list(taken), bound)
        finally:
            if not got:
                taken.pop(slot, None)
        return slot if got else None

    def give_back(self, type: str, slot: object) -> None:
        """Of :meth:`take`."""
        self._taken.get(type, {}).pop(slot, None)


class ServedHandlers:
    """The handlers of one loop, by type: those without a bound, and those of which it has a slot."""

    def __init__(
        self, slots: Slots, handlers: Callable[[], Mapping[str, Handler]], wake: Callable[[], object], most: int = 1
    ) -> None:
        """``handlers()`` returns a mapping that is replaced, never changed. ``most``: how many of a type the loop
        can run at once. ``wake()`` tells other loops that slots are free.
        """
        self._slots = slots
        self._handlers = handlers
        self._wake = wake
        self._most = most
        self._held: dict[str, list[object]] = {}
        #: (all as they were at the last look, those served, whether more slots are wanted).
        self._seen: tuple[Mapping[str, Handler], Mapping[str, Handler], bool] = (NOTHING, NOTHING, False)
        #: Held by the thread that looks: those that run handlers ask too.
        self._looking = threading.RLock()

    def __call__(self) -> Mapping[str, Handler]:
        """Those served now. The mapping is replaced when it changes."""
        seen, served, is_short = self._seen
        now = self._handlers()
        if now is seen and not is_short:
            return served
        with self._looking:
            return self._look(now)

    def number(self, type: str | None) -> int:
        """How many may run at once of a bounded ``type``, or of those without a bound."""
        self()
        held = None if type is None else self._held.get(type)
        return self._most if held is None else len(held)

    def close(self) -> None:
        """Give back all slots. Idempotent."""
        had = any(self._held.values())
        for type in list(self._held):
            self._let_go(type)
        if had:
            self._wake()

    def _look(self, handlers: Mapping[str, Handler]) -> Mapping[str, Handler]:
        bounds = {
            type: handler.concurrency
            for type, handler in handlers.items()
            if handler.concurrency is not None and not handler.is_async
        }
        for type in list(self._held):
            if type not in bounds:
                self._let_go(type)
        for type, bound in bounds.items():
            self._fill(type, bound)
        is_short = any(len(self._held[type]) < min(bound, self._most) for type, bound in bounds.items())
        chosen = {type: handler for type, handler in handlers.items() if self._held.get(type, True)}
        served = self._seen[1]
        served = served if chosen == served else MappingProxyType(chosen)
        self._seen = handlers, served, is_short
        return served

    def _fill(self, type: str, bound: int) -> None:
        held = self._held.setdefault(type, [])
        while len(held) > bound:
            self._slots.give_back(type, held.pop())
        while len(held) < min(bound, self._most) and (slot := self._slots.take(type, bound)) is not None:
            held.append(slot)

    def _let_go(self, type: str) -> None:
        for slot in self._held.pop(type, []):
            self._slots.give_back(type, slot)
