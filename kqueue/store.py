"""The JobStore contract: the durable truth.

Every call takes a list; one job is a list of one. Every call that compares times takes ``now``, which the
caller has from :meth:`JobStore.now`. A stale ``now`` may only make a job wait a little longer, but for leases: a
lease runs from ``now``, so read it just before :meth:`JobStore.claim` and :meth:`JobStore.renew`. Where a store
makes these wait for its lock, it adds the wait to ``now``, so that no lease is over when it is granted.
``tests/contracts/test_store.py`` says the same in running code, and every store passes it.

Every method raises :class:`~kqueue.errors.StoreUnavailable`, naming the store's address, when the store is
not there, does not answer, or is locked for too long; then nothing was changed, unless said otherwise.
A store may be shared by threads, and be used after a fork: the child opens handles of its own.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from kqueue.job import Row
from kqueue.stored_times import Misdated
from kqueue.window import Limits

#: Stands for all types where one may be paused.
ALL_TYPES = "*"


class Throttle(NamedTuple):
    """How many jobs of a type may run, over all workers. Who claims says the numbers; the store keeps count.

    A job of a type with a throttle passes two *gates*: that of its type (``running`` and ``starts``), and then, if
    it has a ``limit_key``, that of its key (``running_per_key``). A bound that is None does not hold.
    """

    type: str
    #: At once.
    running: int | None = None
    #: At once, of those with the same ``limit_key``.
    running_per_key: int | None = None
    #: Claims in ``period`` seconds. One that is given back unrun has counted.
    starts: int | None = None
    #: Seconds.
    period: float = 1.0


class Selection(NamedTuple):
    """Which rows a claim may take: those of ``types``, either by id or whatever is ready."""

    types: tuple[str, ...]
    #: Candidates in this order; None for all ready rows by (priority, order added).
    ids: tuple[str, ...] | None = None
    #: Of those types that have limits, at most one each.
    throttles: tuple[Throttle, ...] = ()


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


class Delete(NamedTuple):
    """Settle: the job is finished, its row goes."""

    id: str
    fence: int


class Finish(NamedTuple):
    """Settle: the job is finished, its row is kept as done until ``keep_until``. Clears crashes and suspicion."""

    id: str
    fence: int
    keep_until: float
    #: When that was reckoned; None: when it is settled.
    asked_at: float | None = None


class Retry(NamedTuple):
    """Settle: the run failed; ready at ``run_at``. Adds a failure, clears crashes and suspicion."""

    id: str
    fence: int
    run_at: float
    reason: str
    put_at: float | None
    #: When ``run_at`` was reckoned; None: when it is settled.
    asked_at: float | None = None


class Unget(NamedTuple):
    """Settle: given back; the try of its claim is taken off. Clears crashes and suspicion if it was started."""

    id: str
    fence: int
    run_at: float
    #: None keeps the job's own.
    priority: int | None
    put_at: float | None
    started: bool
    #: Why, if there is more to say than before; None keeps the job's own.
    reason: str | None = None
    #: As in :class:`Retry`.
    asked_at: float | None = None


class Die(NamedTuple):
    """Settle: the run failed for the last time; dead, and kept. Adds a failure, clears crashes and suspicion."""

    id: str
    fence: int
    reason: str


Settlement: TypeAlias = Delete | Finish | Retry | Unget | Die


class Settled(NamedTuple):
    """What did not match its fence, so was not changed by a settle."""

    #: Their ids.
    lost: frozenset[str] = frozenset()
    #: Deletes that found no row where the store cannot tell which of the batch they were.
    unnamed: int = 0
    #: Ids of deletes that found no row, where the first sending of them, whose reply was lost, may have done it.
    unsure: frozenset[str] = frozenset()


class Held(NamedTuple):
    """A job in hand, as ``renew`` wants it."""

    id: str
    fence: int
    #: Seconds.
    ttr: float


class Due(NamedTuple):
    """A row that wants a pointer."""

    id: str
    type: str
    priority: int
    run_at: float
    #: The row's ``put_at`` as it was read; ``mark`` compares it.
    put_at: float | None


class Head(NamedTuple):
    """The entry that a tube would serve next."""

    priority: int
    put_at: float


class Abandoned(NamedTuple):
    """A running row whose lease has run out."""

    id: str
    type: str
    alone: bool
    crashes: int
    lease_owner: str | None
    lease_until: float


class Recovered(NamedTuple):
    """Rows whose lease had run out."""

    ready: int
    dead: int


#: From one tick of a schedule to another, both with it: all its ticks in between were added too.
Span: TypeAlias = tuple[float, float]


class Tick(NamedTuple):
    """A schedule goes on from one tick to another. Times in seconds since 1970."""

    schedule: str
    #: Its last tick as it was read; None if it never had one.
    before: float | None
    after: float
    #: The ticks that were added, those of this write too, as far as they are remembered: the earliest first.
    added: tuple[Span, ...] = ()


class Admission(NamedTuple):
    """What was let through the gates of a type."""

    #: Ready now, with the ``put_at`` that was given; they want their pointers.
    dues: list[Due]
    #: When a place may be free although no run ends (a lease runs out, a period is over), by the store's clock.
    #: None if nothing is held, or if all the places are those of rows that were admitted and are not claimed yet.
    next_at: float | None


class Standing(NamedTuple):
    """Rows of one type in one state."""

    type: str
    state: str
    rows: int
    #: The earliest ``run_at`` among them: since when the longest waiting one waits, where they wait.
    oldest_run_at: float


class WorkerRecord(NamedTuple):
    """A process that runs jobs, as it told the store."""

    #: Made as job ids are, so it names its host and process.
    id: str
    host: str
    pid: int
    #: Those that have a handler there, sorted.
    types: tuple[str, ...]
    started_at: float
    #: When it was last heard of. All times by the store's clock.
    seen_at: float
    #: What else it tells, as a JSON object.
    note: str = "{}"


class JobStore(Protocol):
    """Keeps rows. See the module's text for what holds for every method."""

    @property
    def address(self) -> str:
        """Its URL for messages, without a password."""

    def exists(self) -> bool:
        """Whether there is a store at the address, so that :meth:`open` makes none. Makes nothing."""

    def open(self) -> None:
        """Connect, and make or migrate the schema. Idempotent; every other call opens by itself.

        Raises ``StoreError`` if the schema is newer than this KQueue knows.
        """

    def close(self) -> None:
        """Close this process's handles. Idempotent; a later call opens again."""

    def now(self) -> float:
        """The store's clock: seconds since 1970."""

    def identity(self) -> str:
        """The store's random id, as :func:`kqueue.tubes.new_id` makes one: always the same, unless another store
        has taken its place.

        It is bound to what no copy has: to the inode and birth of a SQLite file; to a database's name and its
        replica set; to the instance of a store in memory. What was copied takes an id of its own when it is opened,
        and every claim of it gives a fence above any that the original may have given since.
        """

    def begin_anew(self) -> None:
        """Take another id, and begin fences anew, as a copy does: for contents that were restored in their old
        place, which nothing tells from the original. Nobody may use the store meanwhile.
        """

    def backup(self, path: str, *, replace: bool) -> None:
        """Save all there is as the file ``path``, while others go on using the store.

        Raises ``ValueError`` for a path that is there, unless ``replace``, and ``StoreError`` where the store
        cannot do this, naming what can, or where the file cannot be written or does not pass its check.
        """

    def restore(self, path: str, *, replace: bool) -> list[str]:
        """Make the store anew from the backup ``path``, as another one: see :meth:`identity`. What was there is
        moved aside, only if ``replace``; returns where to. The store is closed, by everybody.

        Raises as :meth:`backup` does, and ``StoreUnavailable`` while somebody uses the store.
        """

    def setting(self, name: str, default: str) -> str:
        """The setting's value; if it has none, ``default`` is stored. Of many writers the first wins."""

    # -- a job's way -------------------------------------------------------------------------------------

    def add(self, rows: Sequence[Row]) -> None:
        """Store new rows; durable when it returns. Costs one write, whatever their number.

        Whatever goes wrong in the store, also that it is not there, raises :class:`~kqueue.errors.AddFailed`,
        with the cause chained. It tells taken, not taken and unknown ids apart.
        """

    def add_unique(self, row: Row, until: float, now: float) -> str:
        """Add ``row`` unless its type and ``unique_key`` are taken, in one transaction; returns the id of the job
        that has them then: ``row.id`` if it was added.

        They are taken while the job that took them is delayed, ready, held or running, and until ``until`` as its
        own add said (seconds since 1970) whatever became of it; :meth:`delete` and :meth:`purge` free them. An
        index of the store holds it: of many that add at once one is added. Raises as :meth:`add` does.
        """

    def add_tick(self, tick: Tick, rows: Sequence[Row]) -> bool:
        """Add ``rows`` and write the schedule's last tick, in one transaction: a compare-and-set. False, and
        nothing is changed, if its last tick is not ``tick.before`` any more. Raises as :meth:`add` does; where it
        names jobs as unknown, the tick is as unknown as they are.
        """

    def last_ticks(self) -> dict[str, float]:
        """The last tick of every schedule, by its name. They outlive every job."""

    def added_ticks(self) -> dict[str, tuple[Span, ...]]:
        """What the last :class:`Tick` of every schedule said was ``added``, by its name; nothing of one that an
        older KQueue wrote.
        """

    def claim(self, selection: Selection, limits: Limits, owner: str, now: float, alone: bool) -> Claim:
        """Take ready rows, or delayed ones that are due, for one window: a compare-and-set.

        ``limits.fit`` says which of the candidates. Each taken row is running, with fence and tries one higher,
        ``lease_until = now + ttr``, and ``alone`` stored if it is the only one taken. A lease begins when it is
        written: by ``now`` and the wait since, or by the server's own clock, since ``now`` may be old by then; the
        rows that are returned say ``lease_until`` no later than it is. ``owner`` is unique for each call; after a
        lost reply the claim is read back by it. Candidates that are gone, leased, dead, or of another type are
        passed over. Durable when it returns.

        A claim without ids sees ready rows only; :meth:`promote` makes delayed ones ready.

        A row of a type with a throttle is taken only if there is a place for it: at the gate of its type, fewer
        than ``running`` rows of the type run under a lease that is not over, and fewer than ``starts`` were claimed
        in the last ``period`` seconds; then at the gate of its ``limit_key``, fewer than ``running_per_key`` of the
        type and key run so. It is held at the first gate that has no place (``state`` held, ``gate`` its name,
        ``put_at`` None), and also where another row that comes before it by (priority, order added) waits at that
        gate or was admitted by it and not claimed yet, unless this gate has admitted it: so nobody is overtaken. A
        held row is passed over, and does not cut the window; a claim without ids may end after it has held 1,000.
        While it runs, ``gate`` is the type. So what runs is counted if it was claimed under a throttle, or was
        renewed after it was recovered.
        """

    def admit(
        self, throttle: Throttle, keys: Collection[str] | None, now: float, put_at: float | None, limit: int
    ) -> Admission:
        """Make held rows of the throttle's type ready, up to ``limit``, as many at each gate as it has places that
        no row has which it admitted before, the best priority first, then the first added. They keep their
        ``gate`` until they are claimed, and get ``put_at``.

        Looks at the gate of the type, and at those of ``keys``, or of all keys if None. A bound that is None lets
        all through. Of many that admit at once, no place is given twice.
        """

    def held_types(self, types: Sequence[str]) -> list[str]:
        """Those of ``types`` that have a held row, sorted. One statement, and an index probe for each type."""

    def held_by(self, owner: str) -> list[Row]:
        """The rows that run under the claim of ``owner``: what a caller holds whose claim was interrupted."""

    def renew(self, held: Sequence[Held], now: float, alone: bool | None = None) -> frozenset[str]:
        """``lease_until = now + ttr`` where id and fence match, the run is not settled, and the row is running,
        or ready again after its lease ran out (then it is running again). ``alone`` is stored unless None.
        Returns the ids lost.
        """

    def settle(self, settlements: Sequence[Settlement], now: float) -> Settled:
        """End runs where id and fence match and the run is not settled yet (``lease_owner`` is there), in one
        transaction where the store has them. So a run is settled once, however often it is asked for.

        Finish, Retry and Die add to the row's history: its ``lease_owner``, ``now``, and the reason (None for
        Finish).

        A row may also have become ready by :meth:`recover` since: its fence still matches, so its late holder may
        settle it. A dead row's holder may too. Rows that come back are ``delayed`` if ``run_at > now``, else
        ``ready``. Durable when it returns. When it raises, a store without transactions may have done a part of it;
        to settle the same again is then safe, and names as lost what was done. Where that may be, the error's
        ``may_be_done`` is True.
        """

    # -- the operator's ----------------------------------------------------------------------------------

    def delete(self, ids: Sequence[str]) -> int:
        """Delete rows whatever their state and fence, and free their unique keys; returns how many there were."""

    def revive(self, ids: Sequence[str], reason: str, now: float, put_at: float | None) -> list[Due]:
        """Make dead rows ready: tries, failures, crashes and suspicion 0, the fence kept; a holder that there
        may still be has lost them. Returns those made.
        """

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows that there are, in the order of ``ids``."""

    def find(self, type: str | None, state: str, after: str | None, limit: int) -> list[Row]:
        """Up to ``limit`` rows in ``state``, of ``type`` or of all if None, in the order of their ids (the order
        added, as far as ids tell): those with an id greater than ``after``, or from the first if None.

        Dead and done rows are found beside any backlog of waiting ones. In another state it may walk past
        rows of all.
        """

    def counts(self, type: str | None = None) -> dict[str, int]:
        """Rows by state, all states named, of one type or of all."""

    def overview(self) -> list[Standing]:
        """How many rows stand where, by type and state, sorted. For an operator: it may read every row, and names
        every type that has one.
        """

    def ahead(self, row: Row, limit: int) -> int:
        """How many ready rows of its type come before ``row`` by (priority, order added); ``limit`` at most."""

    def purge(self, type: str, limit: int) -> int:
        """Delete up to ``limit`` rows of the type that do not run, and free the type's unique keys that no job has
        any more; returns how many rows.
        """

    def pause(self, type: str, now: float) -> bool:
        """Remember that ``type`` (or :data:`ALL_TYPES`) is paused since ``now``; False if it was already."""

    def resume(self, type: str) -> bool:
        """End the pause of ``type`` (or of :data:`ALL_TYPES`, which leaves those of single types); False if there
        was none.
        """

    def paused(self) -> dict[str, float]:
        """What is paused, and since when. One small read. The store only remembers it: a claim does not look."""

    def see_worker(self, worker: WorkerRecord) -> None:
        """Remember ``worker``, in the place of what was remembered of its id."""

    def forget_worker(self, id: str) -> None:
        """It has left."""

    def workers(self) -> list[WorkerRecord]:
        """All that are remembered, by id (the order started)."""

    # -- the sweep's -------------------------------------------------------------------------------------

    def take_sweep(self, now: float, interval: float) -> bool:
        """True for one caller in ``interval`` seconds, over all processes: compare-and-set on the time of
        the last sweep. A last sweep in the future (the clock went back) does not count.
        """

    def promote(self, now: float, limit: int) -> int:
        """Make up to ``limit`` delayed rows ready whose ``run_at <= now``, the earliest first; how many."""

    def recover(self, now: float, max_crashes: int, limit: int) -> Recovered:
        """Take up to ``limit`` running rows whose ``lease_until <= now`` from their holder. A server that has a
        clock is asked for its time; then ``now`` does not matter.

        A row that was ``alone`` gets a crash, and is dead at ``max_crashes``; any other gets a suspicion.
        Those not dead are ready, with ``put_at`` and ``gate`` None. The fence and ``lease_owner`` stay, so a late
        holder that comes before the next claim may still settle. It adds to their history.
        """

    def expire(self, now: float, limit: int) -> int:
        """Delete up to ``limit`` done rows whose ``keep_until <= now``, the earliest first; returns how many.
        Nothing that is not done is ever deleted by its age.

        Also forgets, in lots of ``limit``, what nobody asks for any more: unique keys that are not taken, claims
        that throttles counted more than a day ago, workers that were not heard of for a day.
        """

    def find_misdated(self, types: Sequence[str] | None, now: float, limit: int) -> list[Misdated]:
        """Up to ``limit`` records of each kind that hold a time which lies further ahead of ``now`` than it can:
        see :mod:`kqueue.stored_times`. Changes nothing, and costs a few index probes whatever there is, and some
        more for each TTR under which jobs run.

        With ``types``: of the ready rows of these types that have a pointer, a few probes for each type and
        priority. With None: of all other jobs that wait, run or have ended, of unique keys, counted starts, pauses
        and workers. What is under way may be passed over: what cannot be seen of a running row is set right when
        its run ends.
        """

    def repair_times(self, types: Sequence[str] | None, now: float, limit: int) -> int:
        """Set right what :meth:`find_misdated` would find, and return how many records that were. Of two at once
        one changes a row, and none overwrites what anybody else has changed meanwhile.
        """

    def find_due(self, now: float, limit: int) -> list[Due]:
        """Up to ``limit`` rows that :meth:`promote` would make ready, in its order. Changes nothing."""

    def find_abandoned(self, now: float, limit: int) -> list[Abandoned]:
        """Up to ``limit`` rows that :meth:`recover` would take, the longest abandoned first. Changes nothing."""

    def find_unput(self, until: float, limit: int) -> list[Due]:
        """Up to ``limit`` rows with ``put_at`` None that are ready, or delayed with ``run_at <= until``."""

    def ready_types(self, after: str, limit: int) -> list[str]:
        """Up to ``limit`` types that have a ready row, sorted: those after the name ``after``, which may be empty.
        A few index probes for each, whatever the backlog and however many others there are.
        """

    def sweep_position(self) -> str:
        """The type that :meth:`keep_sweep_position` was told last; empty at first."""

    def keep_sweep_position(self, type: str) -> None:
        """Remember how far a round of the sweep has come. Whoever writes last is remembered."""

    def find_lost(self, heads: Mapping[str, Head | None], now: float, grace: float, limit: int) -> list[Due]:
        """Up to ``limit`` ready rows that have lost their pointer, in the order of their types, the best priority
        first. ``heads`` has the types that are asked about, each with what its tube would serve next.

        The head rule: ``put_at`` and ``run_at`` are both at ``now - grace`` or before, and the type's head is None,
        or of a larger priority number, or of the same and put later than the row by more than ``grace``.

        One statement or command, whatever the number of types.
        """

    def mark(self, dues: Sequence[Due], put_at: float) -> list[Due]:
        """Write ``put_at`` where the row still is ready or delayed and its ``put_at`` is as it was read
        (compare-and-set); returns those written. Of many sweeps at once, each row is marked by one.
        """

    # -- dispatching without a broker --------------------------------------------------------------------

    def has_ready(self, types: Sequence[str]) -> bool:
        """Whether any row of these types is ready. Index probes only."""

    def next_run_at(self) -> float | None:
        """The earliest ``run_at`` of a delayed row, or None. One index probe."""

    def pulse(self) -> object:
        """A cheap token that differs once any process has changed the store since the last call; None if the
        store has no such thing. May differ without a change.
        """
