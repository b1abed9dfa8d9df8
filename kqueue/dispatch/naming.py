"""Which tubes are a store's: the broker is told anew where another store has taken the place of the one it served.

A file may be replaced and a database restored while a worker waits. From then on its tubes are those of another
store, whose id is another; to go on with the old ones would be to wait where nobody puts anything.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from kqueue.contracts.broker import Broker
from kqueue.contracts.store import JobStore
from kqueue.model import tubes
from kqueue.model.errors import StoreReadOnly

#: The store's setting that keeps its prefix: the first that was given.
PREFIX_SETTING: Final = "prefix"
#: Under which a store remembers its own id and the broker's address: what is copied has another id, and is not to
#: use the broker of the original.
BROKER_NAME: Final = "broker"
#: Seconds between two looks at the store's id.
LOOK_S: Final = 5.0


class Naming:
    """Of one queue. Shared by its threads: two that look at once tell the broker the same."""

    def __init__(
        self,
        store: JobStore,
        broker: Broker,
        prefix: str | None,
        monotonic: Callable[[], float],
        *,
        address: str | None = None,
    ) -> None:
        """``prefix``: the one that was asked for, if any. ``address``: the broker's URL, without a password, if
        others may use it: the store remembers it.
        """
        self._store = store
        self._broker = broker
        self._wanted = prefix
        self._monotonic = monotonic
        self._address = address
        self._look_at = -1.0
        self._store_id: str | None = None
        #: What the names of the tubes begin with now.
        self.beginning = ""

    def look(self) -> None:
        """See whose tubes are to be served, and tell the broker if that has changed.

        Raises ``StoreError``, and ``ValueError`` for a prefix that is not the store's.
        """
        self._look_at = self._monotonic() + LOOK_S
        store_id = self._store.identity()
        if store_id != self._store_id:
            self.beginning = tubes.beginning(self._agreed_prefix(), store_id)
            self._broker.open(self.beginning)
            self._store_id = store_id
            if self._address is not None:
                _remember_broker(self._store, f"{store_id} {self._address}")

    def follow(self) -> str:
        """:meth:`look` if that was not done lately; returns what the names of the tubes begin with."""
        if self._monotonic() >= self._look_at:
            self.look()
        return self.beginning

    def _agreed_prefix(self) -> str:
        """The one that all who use this store have: the first that was given, or else none."""
        wanted = self._wanted or ""
        kept = self._store.setting(PREFIX_SETTING, wanted)
        if self._wanted not in {None, kept}:
            raise ValueError(
                f"prefix: the tubes of the store at {self._store.address} begin with {kept!r}, not {wanted!r};"
                " give that one, or none"
            )
        # A version that knew no ids made a random one up, which says no more than the id does.
        return "" if tubes.OLD_RANDOM_PREFIX.fullmatch(kept) else kept


def remembered_broker(store: JobStore) -> str | None:
    """The URL of the broker with which the store was opened last; None if it never was. Raises ``StoreError``."""
    store_id, _, address = (store.remembered(BROKER_NAME) or "").partition(" ")
    return address if address and store_id == store.identity() else None


def forget_broker(store: JobStore) -> str | None:
    """Have it remembered no more, until the store is opened with one. Returns what it was; None if there was none.
    Raises ``StoreError``.
    """
    known = remembered_broker(store)
    if known is not None:
        store.remember(BROKER_NAME, "")
    return known


def _remember_broker(store: JobStore, value: str) -> None:
    """Writes nothing where it is known, and does without where the store may only be read."""
    with suppress(StoreReadOnly):
        if store.remembered(BROKER_NAME) != value:
            store.remember(BROKER_NAME, value)
