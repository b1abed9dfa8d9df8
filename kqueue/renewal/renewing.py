"""Renews the leases of one store: a thread of the renewer, since a store may keep whoever calls it waiting."""

import math
import threading
from collections.abc import Callable, Sequence

from kqueue.contracts.runs import LeaseKey
from kqueue.contracts.store import JobStore
from kqueue.model.errors import KQueueError
from kqueue.renewal.due import DueRenewals, Look, News, WindowEntry, settlement
from kqueue.renewal.messages import RenewalWindow, Trouble
from kqueue.system.clock import Clock

#: Seconds that the end of the thread is waited for: it may be waiting for the store.
PATIENCE_S = 1.0


class Renewing:
    """Of one store, for all clients that use it."""

    def __init__(
        self,
        open_store: Callable[[], JobStore],
        look: Look,
        tell: Callable[[Sequence[News]], None],
        complain: Callable[[Trouble], None],
        clock: Clock,
        *,
        kill: Callable[[WindowEntry], object] | None = None,
    ) -> None:
        """``open_store()`` is called in the thread, until it returns a store. ``tell`` and ``complain`` get what
        clients are to know, and ``kill`` a run whose process is to be killed, in the thread too; they must not
        wait.
        """
        self._open_store = open_store
        self._look = look
        self._tell = tell
        self._complain = complain
        self._monotonic = clock.monotonic
        self._store: JobStore | None = None
        self._kill = kill
        self._due = DueRenewals(kills=kill is not None)
        self._changed = threading.Condition()
        #: When the thread wakes by itself.
        self._wakes_at = math.inf
        self._closed = False
        #: Whether the clients know that the store is not there.
        self._complained = False
        self._thread = threading.Thread(target=self._run, name="kqueue-renewing", daemon=True)
        self._thread.start()

    def hold(self, client: int, window: RenewalWindow) -> None:
        """See :meth:`kqueue.renewal.due.DueRenewals.hold`."""
        with self._changed:
            if self._due.hold(client, window, self._monotonic()) < self._wakes_at:
                self._changed.notify()

    def let_go(self, client: int, slot: int) -> None:
        """See :meth:`kqueue.renewal.due.DueRenewals.let_go`."""
        with self._changed:
            self._due.let_go(client, slot)

    def forget(self, client: int) -> None:
        """See :meth:`kqueue.renewal.due.DueRenewals.forget`."""
        with self._changed:
            self._due.forget(client)

    def close(self) -> None:
        """End the thread, and wait for it a little."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(PATIENCE_S)

    # -- the thread's ------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._await_time()
                if self._closed:
                    break
                renew, end, kill = self._due.round(self._monotonic(), self._look)
            for entry in kill:
                if self._kill is not None:
                    self._kill(entry)
            self._renew(renew)
            self._end(end)
        if self._store is not None:
            self._store.close()  # one that the process uses for other things opens again by itself

    def _await_time(self) -> None:
        """Until something is due, or the end. Under the lock, which it leaves while it waits."""
        while not self._closed:
            self._wakes_at = self._due.next_at()
            seconds = self._wakes_at - self._monotonic()
            if seconds <= 0:
                break
            self._changed.wait(None if seconds == math.inf else min(seconds, threading.TIMEOUT_MAX))
        self._wakes_at = -math.inf  # whatever is to be renewed now is seen before the next wait

    def _renew(self, entries: list[WindowEntry]) -> None:
        at = self._monotonic()
        keys = [LeaseKey(hold.id, hold.fence, hold.ttr) for hold in (entry.hold for entry in entries)]
        self._ask(
            entries,
            lambda store: store.renew(keys, store.now()),
            lambda lost: self._due.renewed(entries, lost, at),
        )

    def _end(self, entries: list[WindowEntry]) -> None:
        def settle(store: JobStore) -> frozenset[str]:
            now = store.now()
            return store.settle([settlement(hold, now) for hold in (entry.hold for entry in entries)], now).lost

        self._ask(entries, settle, lambda lost: self._due.ended(entries, lost))

    def _ask(
        self,
        entries: list[WindowEntry],
        call: Callable[[JobStore], frozenset[str]],
        note: Callable[[frozenset[str]], list[News]],
    ) -> None:
        """``call`` returns the ids lost, and ``note`` what to tell."""
        if not entries:
            return
        try:
            if self._store is None:
                self._store = self._open_store()
            lost = call(self._store)
        except Exception as error:  # whatever a store raises, the others' leases need this thread
            self._fail(entries, error)
            return
        self._complained = False
        with self._changed:
            news = note(lost)
        self._tell(news)

    def _fail(self, entries: list[WindowEntry], error: Exception) -> None:
        if not self._complained:
            self._complained = True
            said = str(error) if isinstance(error, KQueueError) else f"{type(error).__name__}: {error}"
            self._complain(Trouble(f"leases are not renewed, and soon tried again: {said}"))
        with self._changed:
            news = self._due.failed(entries, self._monotonic())
        self._tell(news)
