"""Group commit: of the threads that add at once, one writes the rows of all.

Theory of operation. A commit costs a write to the disk, or a round trip, whatever it holds. So a thread that comes
while another writes leaves its rows in a queue, and sleeps. Who writes, the *leader*, wakes the first of the queue
when it is done; that one takes all that has come meanwhile and writes it together with its own, in one ``add`` of
the store. It does so once, and leads no more: nobody writes for others without end. A thread that is alone finds no
leader and waits for none: no thread is switched to, and no more is written than before.

*Errors.* A call is told what became of its own rows, as if it had been alone. If the store has refused a shared
write, each thread makes its own again, alone: so a row that cannot be written spoils only its own add, and whoever
is refused has an error of his own. Where the shared write has failed only after a wait, as for a file that another
process has locked or a server that is away, that wait was everyone's, and each is told at once.

*Signals.* A signal's handler may raise in the midst of a write, but only in the main thread. So that one neither
writes for others nor waits for them: it adds by itself, as the store's own lock lets it. Greenlets all live in that
thread, so they share nothing. What a library throws into another thread (``PyThreadState_SetAsyncExc``) may strike
the leader; then each of those for whom it wrote looks into the store.

*Waits.* The leader's turn is a plain lock, held by ``with`` alone (:mod:`kqueue.system.locks`), which no exception
leaves held. Who waits does so by a lock of its own, and not for ever: after a while it withdraws its call, if no
leader has taken it, and adds by itself, where the store's time-outs hold; if one has, it waits for the end of that
one's turn. So nobody hangs, whatever becomes of who was to wake him.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from kqueue.contracts.store import JobStore
from kqueue.model.errors import AddFailed, StoreError
from kqueue.model.job import Row
from kqueue.model.wording import counted
from kqueue.system.forks import PerProcess
from kqueue.system.locks import is_main_thread
from kqueue.system.threads import Sleep, are_greenlets

#: Rows of a call at most, and bytes of their payloads, that are written together with others: what is more gains
#: nothing by it, and keeps others waiting.
MOST_ROWS, MOST_BYTES = 50, 2**16
#: Calls that are written together at most.
MOST_CALLS = 200
#: Seconds after which a call that no leader has taken goes by itself; and that a write takes at most which each
#: makes again where it was refused.
PATIENCE_S = 1.0


class GroupCommit:
    """Adds rows to one store. Shared by threads, and safe to use after a fork."""

    def __init__(self, store: JobStore, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._groups = PerProcess(lambda: _Group(store, monotonic))

    def add(self, rows: Sequence[Row]) -> None:
        """As the store's ``add``, whose errors it raises: of these rows alone."""
        if is_main_thread() or not _is_small(rows):
            self._store.add(rows)
        else:
            self._groups.get().add(rows)


class _PendingAdd:
    """What one call adds."""

    __slots__ = ("error", "is_over", "is_refused", "rows", "sleep")

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        #: Whether it is known what became of it.
        self.is_over = False
        #: Whether nothing of it is there, and its thread is to add it alone.
        self.is_refused = False
        self.error: AddFailed | None = None
        #: Of its thread.
        self.sleep = Sleep()

    def ids(self) -> list[str]:
        return [row.id for row in self.rows]


class _Group:
    """The threads of one process."""

    def __init__(self, store: JobStore, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._monotonic = monotonic
        self._waiting: deque[_PendingAdd] = deque()
        #: The leader has it, from the taking of the calls until it is known what became of each.
        self._turn = threading.Lock()
        self._leader = 0
        self._has_threads = not are_greenlets()

    def add(self, rows: Sequence[Row]) -> None:
        # A finalizer, or a handler of the log, may have interrupted the leader's own write.
        if not self._has_threads or self._leader == threading.get_ident():
            self._store.add(rows)
            return
        call = _PendingAdd(rows)
        self._waiting.append(call)
        try:
            while not call.is_over:
                if not self._turn.locked():
                    self._lead(call)
                elif not call.sleep.wait(PATIENCE_S):
                    self._lose_patience(call)
        except BaseException:
            self._withdraw(call)
            self._wake_first()  # perhaps this one was to lead
            raise
        if call.error is not None:
            raise call.error
        if call.is_refused:
            self._store.add(rows)

    def _lead(self, call: _PendingAdd) -> None:
        """Write ``call`` and those that wait, once nobody else writes; unless that was done meanwhile."""
        batch: list[_PendingAdd] = []
        try:
            with self._turn:
                if self._withdraw(call):
                    batch.append(call)
                    with suppress(IndexError):
                        batch.extend(self._waiting.popleft() for _ in range(MOST_CALLS - 1))
                    self._leader = threading.get_ident()
                    try:
                        self._write(batch)
                    finally:
                        self._leader = 0
                elif not call.is_over:  # whoever has taken it was struck
                    self._look([call], "the thread that wrote for others too was interrupted by an exception")
                    call.is_over = True
        finally:
            self._wake_first()
            for one in batch:
                one.sleep.wake()

    def _lose_patience(self, call: _PendingAdd) -> None:
        if self._withdraw(call):
            call.is_over = call.is_refused = True
            self._wake_first()
        else:  # it was taken: wait for the end of that
            self._lead(call)

    def _write(self, batch: list[_PendingAdd]) -> None:
        if len(batch) == 1:
            batch[0].is_over = True
            self._store.add(batch[0].rows)  # what it raises is its own
            return
        began = self._monotonic()
        try:
            # By their ids, so as if each had been added when its id was made.
            self._store.add(sorted((row for call in batch for row in call.rows), key=_id))
        except AddFailed as error:
            outcome = _Outcome(error, has_waited=self._monotonic() - began > PATIENCE_S)
            for call in batch:
                outcome.tell(call)
        except Exception as error:  # a row that cannot even be handed to it, or a fault of the store's own
            self._look(batch, f"{type(error).__name__}: {error}", is_rolled_back=True)
        for call in batch:
            call.is_over = True

    def _look(self, calls: Sequence[_PendingAdd], why: str, *, is_rolled_back: bool = False) -> None:
        """See which are there. What is not may have come and gone, so nobody can tell; but of a write that was
        rolled back if it failed, none is there.
        """
        try:
            there = {row.id for row in self._store.get([id for call in calls for id in call.ids()])}
        except StoreError:
            there, is_rolled_back = set(), False
        for call in calls:
            if not there and is_rolled_back:
                call.is_refused = True
            elif not there.issuperset(call.ids()):
                call.error = AddFailed(
                    f"{counted(len(call.rows), 'job')} may have been added or not: {why}", unknown=call.ids()
                )

    def _withdraw(self, call: _PendingAdd) -> bool:
        """Whether it still waited. Then nobody takes it any more."""
        try:
            self._waiting.remove(call)  # one step
        except ValueError:
            return False
        return True

    def _wake_first(self) -> None:
        with suppress(IndexError):
            self._waiting[0].sleep.wake()


class _Outcome:
    """What became of the rows of a shared write that failed."""

    def __init__(self, error: AddFailed, *, has_waited: bool) -> None:
        """``has_waited``: all were kept waiting, and none is to wait again."""
        self._taken, self._unknown = frozenset(error.taken), frozenset(error.unknown)
        self._has_waited = has_waited
        # Where they met different fates, it may be another's.
        is_one = sum(map(bool, (error.taken, error.not_taken, error.unknown))) == 1
        self._cause = (error.__cause__ or error) if is_one else None

    def tell(self, call: _PendingAdd) -> None:
        """Say so to one of the calls, of its own rows."""
        ids = call.ids()
        taken = [id for id in ids if id in self._taken]
        unknown = [id for id in ids if id in self._unknown]
        if taken == ids:
            return
        if not (taken or unknown or self._has_waited):
            call.is_refused = True
            return
        not_taken = [id for id in ids if id not in self._taken | self._unknown]
        what = f"{len(taken)} were taken, {len(not_taken)} were not, {len(unknown)} are unknown"
        why = "" if self._cause is None else f": {self._cause}"
        call.error = AddFailed(
            f"of {counted(len(ids), 'job')} {what}{why}", taken=taken, not_taken=not_taken, unknown=unknown
        )
        call.error.__cause__ = self._cause


def _is_small(rows: Sequence[Row]) -> bool:
    return len(rows) <= MOST_ROWS and sum(len(row.payload) for row in rows) <= MOST_BYTES


def _id(row: Row) -> str:
    return row.id
