"""The renewer of all children: a thread of the parent, which runs no handler, so nothing keeps it from its work."""

import logging
import socket
import threading
from collections.abc import Callable
from functools import partial

from kqueue.renewal.server import Overrun, Server
from kqueue.stores import open_store

#: Seconds that its end is waited for.
PATIENCE_S = 5.0


class RenewalThread:
    """Renews the leases of handlers that want it. See :mod:`kqueue.renewal`."""

    def __init__(self, logger: logging.Logger, overrun: Callable[[Overrun], object]) -> None:
        """``overrun(run)`` is called in another thread, and must not wait."""
        self._server = Server(partial(open_store, create=False), logger, overrun=overrun)
        self._thread = threading.Thread(target=self._server.serve, name="kqueue-renewer", daemon=True)

    def add(self, link: socket.socket) -> None:
        """Serve the child at the other end of ``link``."""
        if not self._thread.is_alive():
            self._thread.start()
        self._server.add(link)

    def close(self) -> None:
        """End the thread: all children are gone."""
        if self._thread.is_alive():
            self._server.close()
            self._thread.join(PATIENCE_S)
