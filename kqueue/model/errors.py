"""What KQueue raises, in one short tree.

Bad arguments are plain ``ValueError`` and ``TypeError``; they are raised before anything is written or
sent. Everything else that KQueue raises by itself stands under :class:`KQueueError`. What a socket or a
database raised is chained to it as ``__cause__``, and the message says which server it was.
"""

from collections.abc import Sequence


class KQueueError(Exception):
    """The root of every error that KQueue raises by itself."""


class StoreError(KQueueError):
    """The store cannot do what was asked. The message names its address.

    ``may_be_done`` is True where nobody can tell whether it did so all the same: only its reply was lost.
    """

    may_be_done: bool = False


class StoreUnavailable(StoreError):
    """The store is not there, does not answer, or is locked for too long. Trying again may help."""


class StoreReadOnly(StoreError):
    """The store may only be read by this user, and what was asked would write. Nothing was changed."""


class AddFailed(StoreError):
    """``add_job`` or ``add_jobs`` did not take every job.

    ``taken``, ``not_taken`` and ``unknown`` hold job ids, each in the order of the payloads. A job that is
    ``unknown`` may be there or not (the store's reply was lost): ask with ``get_job(id)``.
    """

    def __init__(
        self,
        message: str,
        *,
        taken: Sequence[str] = (),
        not_taken: Sequence[str] = (),
        unknown: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.taken = tuple(taken)
        self.not_taken = tuple(not_taken)
        self.unknown = tuple(unknown)


class BrokerError(KQueueError):
    """The broker cannot do what was asked. The message names its address."""


class BrokerUnavailable(BrokerError):
    """The broker is not there or does not answer. No job is lost by it: the sweep puts what was not put."""


class LeaseLost(KQueueError):
    """The job in hand is not ours any more: its lease ran out and another holder took it, or it was deleted.

    Nothing was changed. Whatever the handler did, the new holder will do again: stop working on it.

    ``unknown`` is True where an earlier attempt to settle the job, whose reply was lost, may have done it, so that
    this one found nothing more to settle. Then nobody can tell whether the lease was lost.
    """

    def __init__(self, job_id: str, fence: int, *, unknown: bool = False) -> None:
        lost = "is lost; another holder took the job or it was deleted. Nothing was changed"
        unsure = (
            "is over, and how it ended is unknown: the first attempt to settle the job, whose reply was lost, may"
            " have done it; or another holder took the job"
        )
        super().__init__(f"job {job_id}: the lease with fence {fence} {unsure if unknown else lost}")
        self.job_id = job_id
        self.fence = fence
        self.unknown = unknown


class AlreadySettled(KQueueError):
    """The handler has settled this job before (deleted, retried or given it back). The first one counts."""
