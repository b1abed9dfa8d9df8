"""The JobStore contract: the durable truth.

Every call takes a list; one job is a list of one. Every call that compares times takes ``now``, which the
caller has from :meth:`JobStore.now`. A stale ``now`` may only make a job wait a little longer, but for leases: a
lease runs from ``now``, so read it just before :meth:`JobStore.claim` and :meth:`JobStore.renew`. Where a store
makes these wait for its lock, it adds the wait to ``now``, so that no lease is over when it is granted.
``kqueue/testing/contracts`` says the same in running code, a module for each role, and every store passes it.

Every method raises :class:`~kqueue.model.errors.StoreUnavailable`, naming the store's address, when the store is
not there, does not answer, or is locked for too long; then nothing was changed, unless said otherwise.
A store may be shared by threads, and be used after a fork: the child opens handles of its own.
"""

from typing import Protocol

from kqueue.contracts.admission import Admitting
from kqueue.contracts.dispatching import Dispatch
from kqueue.contracts.intake import Intake
from kqueue.contracts.lookup import Lookup
from kqueue.contracts.operator import Operator
from kqueue.contracts.repair import Repairing
from kqueue.contracts.reporting import Reporting
from kqueue.contracts.runs import Runs
from kqueue.contracts.session import Session
from kqueue.contracts.times import TimeRepair
from kqueue.contracts.workers import Workers


class JobStore(
    Session,
    Intake,
    Admitting,
    Runs,
    Reporting,
    Repairing,
    TimeRepair,
    Dispatch,
    Lookup,
    Operator,
    Workers,
    Protocol,
):
    """Keeps rows: the sum of the roles. A caller asks for the role that it needs."""
