"""The renewer: a process that renews the leases of handlers in other processes, whatever these do.

    worker process                          renewer process (or the parent of ``kqueue worker``)
      client  --- hold, let go ------------>  server  ->  keeping: what is due when (pure)
              <-- lost, over ---------------             renewing: a thread for each store
      board   === which job runs ==========>             (memory that both see)

Theory of operation. Before handlers start the client says, in one write, which leases are to follow them. Which job
of a window runs is a word on the *board*, shared memory that the renewer reads when something is due: so a window
of fast jobs costs one message and no wake-up for each job. The renewer ends what it does for a client when the
socket closes or its process is gone. So when a worker dies, nobody renews its leases and they run out; a child that
it has forked and that outlives it changes nothing.

In ``run_jobs`` the renewer is a small process of its own, started at the first job that wants it and shared by all
loops of the process. ``kqueue worker`` runs the server in a thread of the parent for all its children. A store that
is an object and not a URL cannot be opened by another process; then the server is a thread of this one, and a
handler that keeps the interpreter's lock for longer than its TTR loses its lease.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from kqueue.contracts.store import JobStore

if TYPE_CHECKING:
    from kqueue.renewal.client import Client


def open_renewer(store: JobStore, url: str | None, logger: logging.Logger) -> Client:
    """The renewer of a process; nothing is started before its first use. ``url``: the store's, None if no other
    process can open it.
    """
    from kqueue.renewal.client import Client  # noqa: PLC0415 (for handlers that run)
    from kqueue.renewal.starting import Starter  # noqa: PLC0415

    return Client(Starter(store, url, logger), logger)
