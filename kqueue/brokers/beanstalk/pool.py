"""The connections of one process for all but subscriptions: each call has one for itself.

So no lock is held while a server is waited for, and no call waits for another's answer. Calls that come one after
the other share a connection; calls at the same time have as many as there are, and a few are kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from kqueue.brokers.beanstalk import wire
from kqueue.brokers.beanstalk.connection import Connection, Endpoint
from kqueue.model.errors import BrokerUnavailable

#: Connections that are kept while nobody uses them.
MAX_IDLE = 4


class ConnectionPool:
    """Of one endpoint. Shared by threads: to take from a list and to add to one are each atomic."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._idle: list[Connection] = []
        #: How often it was closed. What was lent before is not kept.
        self._closings = 0
        #: Whether a foreign entry was told of.
        self.has_warned = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """One that answers, and knows its server's ``max_job_size``. Raises ``BrokerUnavailable``."""
        closings = self._closings
        connection = self._take() or self._connect()
        try:
            yield connection
        finally:
            if not connection.is_closed():
                if closings == self._closings and len(self._idle) < MAX_IDLE:
                    self._idle.append(connection)
                else:
                    connection.close()

    def close(self) -> None:
        """Hang up, and let those that are in use be hung up after it. A later call connects again."""
        self._closings += 1
        while (connection := self._pop()) is not None:
            connection.close()

    def _take(self) -> Connection | None:
        while (connection := self._pop()) is not None:
            if connection.usable():
                return connection
            connection.close()
        return None

    def _pop(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _connect(self) -> Connection:
        connection = self._endpoint.connect()
        [reply] = connection.exchange([wire.stats()])
        try:
            size = wire.figure(wire.parse_stats(reply.body), "max-job-size")
        except ValueError:
            size = 0
        if not 0 < size <= wire.MAX_JOB_SIZE:
            connection.close()
            raise BrokerUnavailable(
                f"{self._endpoint.url}: its stats name no max-job-size that can be right; is it a beanstalkd?"
            )
        connection.max_job_size = size
        return connection
