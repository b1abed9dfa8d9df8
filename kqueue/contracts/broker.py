"""The Broker contract: the doorbell.

A broker carries pointers, never payloads and never leases. It may forget, repeat or reorder them: the store
knows better, and the sweep repairs. ``kqueue/testing/contracts/broker.py`` says the same in running code.

Methods that speak to a server raise :class:`~kqueue.model.errors.BrokerUnavailable`, naming its address, when it
is not there or does not answer in time; the connection is then thrown away and the next call makes a new
one. A broker may be shared by threads, and be used after a fork: the child makes connections of its own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from kqueue.contracts.repair import Head
from kqueue.contracts.runs import Selection


class Pointer(NamedTuple):
    """What goes into a tube: where some jobs are, all of one type, priority and time."""

    type: str
    priority: int
    #: The ``put_at`` of its rows: seconds since 1970 by the store's clock.
    put_at: float
    ids: tuple[str, ...]


class Entry(NamedTuple):
    """A pointer that is reserved now."""

    #: The broker's own name for it, valid on the subscription that reserved it only.
    token: int
    pointer: Pointer


class EntryFate(NamedTuple):
    """What becomes of a reserved entry."""

    entry: Entry
    #: None deletes it; 0 gives it back unchanged to its place; more gives it back after so many seconds, rounded up
    #: to whole ones.
    release_in: float | None


def selected(types: tuple[str, ...], entries: Sequence[Entry]) -> Selection:
    """What ``entries`` point to, to be claimed in order. What several name is looked for as the first one says."""
    pointed: dict[str, int] = {}
    for _, pointer in reversed(entries):
        pointed |= dict.fromkeys(pointer.ids, pointer.priority)
    return Selection(types, tuple(id for _, pointer in entries for id in pointer.ids), pointed=pointed)


class Reservation(NamedTuple):
    """What a reserve got."""

    #: What to claim, or None if nothing is ready. A claim of it may find nothing: then reserve again.
    selection: Selection | None
    #: To be settled as soon as the claim has committed. May be empty beside a selection.
    entries: list[Entry]
    #: Entries that are not ours or malformed; they are buried already.
    foreign: int = 0


class Peek(NamedTuple):
    """What a look at a tube found."""

    #: What it would serve next, or None if nothing in it is ready.
    head: Head | None
    #: Entries found before it that are not ours or malformed; they are buried now, unless that was not wanted.
    foreign: int = 0


class Stray(NamedTuple):
    """Tubes that nobody serves any more, of one store."""

    #: What their names begin with.
    beginning: str
    #: How many.
    tubes: int
    #: In all of them, in any state.
    entries: int
    #: When the oldest of what they would serve next was put, in seconds since 1970.
    put_at: float


#: A head that says nothing about any row: everything else would be served after it.
UNKNOWN_HEAD = Head(0, 0.0)


#: How many jobs of a type are wanted now; 0: none, so its entries keep their places.
Room: TypeAlias = Callable[[str], int]


class Subscription(Protocol):
    """One loop's view of some tubes, with a connection of its own. For one thread, but for :meth:`wake` and
    :meth:`freed`.
    """

    def reserve(self, jobs: int, timeout: float, room: Room | None = None) -> Reservation:
        """Entries that hold about ``jobs`` jobs; waits up to ``timeout`` seconds if there is none.

        An entry may be of any of the types, in the order (priority, order put). Returns with no selection
        when the time is up or after :meth:`wake`. Never leaves a reserve pending behind.

        ``room``: of which types any are wanted, at least of one; None: of all. What is not wanted holds up nothing
        behind it, and is not given out.
        """

    def freed(self) -> None:
        """A type may be wanted that was not when :meth:`reserve` was called: make one that waits without it return,
        so that it is asked for again. From any thread. What does not wait is not changed.
        """

    def settle(self, verdicts: Sequence[EntryFate]) -> int:
        """Delete or release entries; returns how many were not ours any more (which harms nothing).

        One that was given back for some seconds may still be deleted by whoever gave it back, as long as nobody has
        reserved it and no connection was lost; to give it back again does nothing.
        """

    def post(self, verdicts: Sequence[EntryFate]) -> None:
        """As :meth:`settle`, but does not wait for the answers: whoever waits for a handler to begin need not wait
        for these. A connection that breaks meanwhile is made anew by the next :meth:`reserve`.
        """

    def wake(self) -> None:
        """Make a waiting or the next :meth:`reserve` return at once. From any thread or a signal handler."""

    def close(self) -> None:
        """Let go of the connection; what it has reserved is ready again. Idempotent; a later
        reserve connects again.
        """


class Broker(Protocol):
    """Carries pointers. See the module's text for what holds for every method."""

    @property
    def address(self) -> str:
        """Its URL, for messages."""

    @property
    def carries_pointers(self) -> bool:
        """Whether pointers go anywhere. False where the store itself dispatches, so needs no put."""

    def open(self, prefix: str) -> None:
        """Tubes are named ``prefix + type`` from now on, as :func:`kqueue.model.tubes.name` says; subscriptions
        keep those that they have. A prefix has at most 30 characters of those of a type. Connects nowhere yet, so
        it works while the server is down.
        """

    def close(self) -> None:
        """Close this process's connections, but no subscription. Idempotent."""

    def put(self, pointers: Sequence[tuple[Pointer, float]]) -> None:
        """Put pointers, each with its delay in seconds (rounded up to whole ones, at most an hour).

        One with more ids than an entry can hold is put as several. When it raises, some may have been put.
        """

    def peek(self, types: Sequence[str], *, bury: bool = True) -> dict[str, Peek]:
        """Look at what each type's tube would serve next, whether the tube is paused or not, with few round trips.

        Entries that are not ours and stand before it are buried. Without ``bury`` the look changes nothing: it ends
        at the first such entry, with :data:`UNKNOWN_HEAD`.
        """

    def drain(self, type: str) -> int:
        """Delete every entry of the type's tube that is not reserved: ready, delayed, buried. How many."""

    def subscribe(self, types: Sequence[str]) -> Subscription:
        """A view of the tubes of ``types``, at least one. Connects at its first reserve."""

    def warnings(self, types: Sequence[str]) -> list[str]:
        """What an operator should know of the server and the tubes of ``types``, a sentence each. None if all is
        well, or without a server. Of many types the first are looked at; what is left out is said.
        """

    def strays(self, before: float) -> list[Stray]:
        """Tubes of other stores that nobody watches, and whose next pointers were put before then. Changes nothing.

        None where the server has more tubes than can be looked at.
        """

    def empty(self, beginning: str) -> int:
        """Delete all entries of the tubes of another store: those whose names begin so, that have a pointer at the
        front, and that nobody watches. How many.
        """

    def depths(self, types: Sequence[str]) -> dict[str, dict[str, int]]:
        """Entries by type and state (``ready delayed reserved buried``); empty without a server."""
