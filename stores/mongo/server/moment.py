"""The time by which a MongoDB grants and judges leases: the server's own, within the command itself.

Theory of operation. A process knows the server's clock from its last look and the time that has passed here since.
That will do for what is ready, and it is no time to grant a lease by: the process may have been frozen or suspended
since, its virtual machine paused, or another member with another clock may have taken over; the lease would be over
when it is granted, and the job would be started again and again. So every write that begins or ends a lease takes
``$$NOW``, which is the wall clock of the server that does it, when it began the command [1]_. What is written is
then copied to the other members as it is.

Two members may have clocks that differ, so leases of one are not judged by the clock of another: see
:mod:`kqueue.stores.mongo.recover`.

.. [1] https://www.mongodb.com/docs/manual/reference/aggregation-variables/#mongodb-variable-variable.NOW
"""

from typing import Any, NamedTuple

from kqueue.stores.mongo.schema import Document

#: An expression: seconds since 1970 by the server that does the command.
SERVERS_NOW: Document = {"$divide": [{"$toLong": "$$NOW"}, 1000]}


class Moment(NamedTuple):
    """Now, as leases begin and end by it."""

    #: As far as it is known here. Never later than the server's, but for what its clock has jumped.
    at: float
    #: False for tests that turn the clock themselves: it is ``at``, and no server is asked.
    by_server: bool

    def later(self, by: float) -> "Moment":
        """The same so many seconds later."""
        return self._replace(at=self.at + by)

    @property
    def expression(self) -> Document:
        """Seconds since 1970, as an expression of the server's."""
        return SERVERS_NOW if self.by_server else {"$literal": self.at}

    def until(self, ttr: Any) -> Document:
        """The end of a lease that begins now: an expression. ``ttr`` is one too, in seconds."""
        return {"$add": [self.expression, ttr]}

    def running_on(self) -> Document:
        """Rows whose lease is not over."""
        if self.by_server:
            return {"$expr": {"$gt": ["$lease_until", SERVERS_NOW]}}
        return {"lease_until": {"$gt": self.at}}
