"""A run of a job: claimed, renewed, settled."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

from kqueue.contracts.admission import Claimer, Limit
from kqueue.contracts.budget import Budget
from kqueue.contracts.settlements import Settled, Settlement
from kqueue.model.job import Row


class Selection(NamedTuple):
    """Which rows a claim may take: those of ``types``, either by id or whatever is ready."""

    types: tuple[str, ...]
    #: Candidates in this order; None for all ready rows by (priority, place).
    ids: tuple[str, ...] | None = None
    #: Of those types that have limits, at most one each.
    limits: tuple[Limit, ...] = ()
    #: None: each row that is claimed takes a place of its own.
    holder: Claimer | None = None
    #: By id, the priority at which a pointer has named it. A row that has another now was changed since, and has a
    #: newer pointer: it is passed over.
    pointed: Mapping[str, int] = MappingProxyType({})

    def serves(self, id: str, priority: int) -> bool:
        """Whether the row, as it is now, is the one that its pointer has named."""
        return self.pointed.get(id, priority) == priority


class Claim(NamedTuple):
    """What a claim got."""

    #: Claimed, as they are now: fence, tries, lease. In the selection's order.
    rows: list[Row]
    #: Whether the window was full before all candidates had been looked at.
    cut: bool
    #: Those looked at, by id, that are not due yet, with their ``run_at``. Empty for a claim without ids.
    later: Mapping[str, float]
    #: How many it held back, since their gates were full.
    held: int = 0


class LeaseKey(NamedTuple):
    """A job in hand, as ``renew`` wants it."""

    id: str
    fence: int
    #: Seconds.
    ttr: float


class Runs(Protocol):
    """A run of a job: claimed, renewed, settled. See :mod:`kqueue.contracts.store` for what holds for every
    method.
    """

    def claim(self, selection: Selection, budget: Budget, owner: str, now: float, alone: bool) -> Claim:
        """Take ready rows, or delayed ones that are due, for one window: a compare-and-set.

        ``budget.fit`` says which of the candidates. Each taken row is running, with fence and tries one higher,
        ``lease_until = now + ttr``, and ``alone`` stored if it is the only one taken. A lease begins when it is
        written: by ``now`` and the wait since, or by the server's own clock, since ``now`` may be old by then; the
        rows that are returned say ``lease_until`` no later than it is. ``owner`` is unique for each call; after a
        lost reply the claim is read back by it. Candidates that are gone, leased, dead, of another type, or of
        another priority than their pointer are passed over. Durable when it returns.

        A claim without ids sees ready rows only; :meth:`promote` makes delayed ones ready.

        A row of a type with a limit is taken only if there is a place for it: at the gate of its type, fewer
        than ``running`` rows of the type run under a lease that is not over, and fewer than ``starts`` were claimed
        in the last ``period`` seconds; then at the gate of its ``limit_key``, fewer than ``running_per_key`` of the
        type and key run so. It is held at the first gate that has no place (``state`` held, ``gate`` its name,
        ``put_at`` None), and also where another row that comes before it by (priority, place) waits at that gate or
        was admitted by it and not claimed yet, unless this gate has admitted it: so nobody is overtaken. A held row
        is passed over, and does not cut the window; a claim without ids may end after it has held 1,000, or 64 if
        it has got a row.
        While it runs, ``gate`` begins with the type. So what runs is counted if it was claimed under a limit, or
        was renewed after it was recovered.

        The rows of a ``holder`` count together, as no more places than it has hands. So where there is room for all
        of its hands it gets any number of rows. Where it has more hands than the gate has places, and others have
        none, it gets ``1 + follow`` rows for each place. Else each row is a place.
        """

    def claimed_by(self, owner: str) -> list[Row]:
        """The rows that run under the claim of ``owner``: what a caller holds whose claim was interrupted."""

    def renew(self, keys: Sequence[LeaseKey], now: float, alone: bool | None = None) -> frozenset[str]:
        """``lease_until = now + ttr`` where id and fence match, the run is not settled, and the row is running,
        or ready again after its lease ran out (then it is running again). ``alone`` is stored unless None.
        Returns the ids lost.
        """

    def settle(self, settlements: Sequence[Settlement], now: float) -> Settled:
        """End runs where id and fence match and the run is not settled yet (``lease_owner`` is there), in one
        transaction where the store has them. So a run is settled once, however often it is asked for.

        Finish, Retry and Die add to the row's history: its ``lease_owner``, ``now``, the reason (None for Finish,
        unless its result is missing), and the traceback, if there is one. Those of the last
        :data:`~kqueue.model.history.TRACEBACKS` that have one are kept; a store may leave out one for which there
        is no room. The result of a Finish is there as long as its row; one for which there is no room is left out,
        and the reason is :data:`~kqueue.contracts.settlements.NO_ROOM`.

        A row's place is behind all others when it is added, and anew when it comes back from a run: by a Retry, an
        Unget that was started, or :meth:`recover`. So what comes back again and again keeps nobody waiting.

        A row may also have become ready by :meth:`recover` since: its fence still matches, so its late holder may
        settle it. A dead row's holder may too. Rows that come back are ``delayed`` if ``run_at > now``, else
        ``ready``. Durable when it returns. When it raises, a store without transactions may have done a part of it;
        to settle the same again is then safe, and names as lost what was done. Where that may be, the error's
        ``may_be_done`` is True.
        """


@runtime_checkable
class RunsInOneWrite(Protocol):
    """Of a store that can end runs and claim others in one transaction. One that cannot has no such method, and is
    asked for each by itself.
    """

    def settle_and_claim(
        self,
        settlements: Sequence[Settlement],
        selection: Selection,
        budget: Budget,
        owner: str,
        now: float,
        *,
        alone: bool,
    ) -> tuple[Settled, Claim]:
        """As :meth:`Runs.settle`, then :meth:`Runs.claim`: what the settlements free is there for it.

        When it raises, the error's ``may_be_done`` says whether the settlements may have been done. What was
        claimed all the same is read back by ``owner``.
        """
