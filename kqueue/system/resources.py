"""What a process may run out of: files, memory, threads. It may have some again soon, so who can wait does."""

import errno

from kqueue.model.errors import KQueueError

_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN}


def are_short(error: BaseException) -> bool:
    """Whether ``error`` says so. A user's signal handler may raise other kinds of ``OSError``."""
    return isinstance(error, OSError) and error.errno in _SCARCE


def named(error: OSError) -> KQueueError:
    """``error`` as ours, which it is chained to."""
    ours = KQueueError(
        f"this process lacks what it needs to run jobs ({error.strerror or error}): let it close files or end"
        " threads, or raise its limits (ulimit -n, ulimit -u)"
    )
    ours.__cause__ = error
    return ours
