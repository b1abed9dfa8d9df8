"""When a queue's store and broker are opened and closed."""

from kqueue.contracts.broker import Broker
from kqueue.contracts.store import JobStore
from kqueue.dispatch.naming import Naming
from kqueue.system import streams


class Opening:
    """Of one queue. Shared by its threads: to open twice at once does no harm."""

    def __init__(self, store: JobStore, broker: Broker, naming: Naming) -> None:
        self._store = store
        self._broker = broker
        self._naming = naming
        self._is_open = False

    def open(self) -> None:
        """Open the store and learn the names of its tubes, unless that is done. Raises ``StoreError``."""
        if not self._is_open:
            streams.secure()
            self._store.open()
            self._naming.look()
            self._is_open = True

    def follow(self) -> str:
        """Open what is not open, and see whether another store has taken the place of this one. What the names of
        the tubes begin with.
        """
        self.open()
        return self._naming.follow()

    def close(self) -> None:
        """Idempotent; it may be opened again. Both may be in use although no opening came to its end."""
        self._is_open = False
        self._broker.close()
        self._store.close()
