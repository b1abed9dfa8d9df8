"""Which servers cannot be reached, as this process sees it: each outage is told once when it is over."""

from kqueue.system.clock import Clock
from kqueue.telemetry.telemetry import Telemetry


class Outages:
    """Shared by the doorbell, the sweeper and the loops of a process, so that who hears a server first tells it.

    To note one and to take it out are each atomic, so there is no lock.
    """

    def __init__(self, telemetry: Telemetry, clock: Clock) -> None:
        self._telemetry = telemetry
        self._clock = clock
        #: When each was first missed, in monotonic seconds, by address.
        self._since: dict[str, float] = {}

    def has_begun(self, server: str) -> None:
        """A call failed. ``server`` is its address."""
        self._since.setdefault(server, self._clock.monotonic())

    def is_over(self, server: str) -> None:
        """A call went well. Where nothing was missed it costs one look. Call it with no lock held: it tells."""
        if self._since:
            since = self._since.pop(server, None)
            if since is not None:
                self._telemetry.reconnected(server, self._clock.monotonic() - since)
