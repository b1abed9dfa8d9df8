"""What a handler may return or raise to say how its run ended; :mod:`kqueue.execution.execute` says what becomes of
it.
"""

from enum import Enum

from kqueue.model import times
from kqueue.model.times import Duration


class Verdict(Enum):
    """The four words of batch systems, for a handler to return."""

    #: The job is finished: it is deleted.
    OK = "OK"
    #: The work came to its end, and the answer is no; another run would give the same. Dead at once.
    FAILED = "FAILED"
    #: Not this time: run it again by the retry policy. A failed try.
    RETRY = "RETRY"
    #: Something went wrong on the way, as if the handler had raised: by the retry policy. A failed try.
    ERROR = "ERROR"


class Snooze(Exception):
    """Not now: give the job back for ``seconds``, at no cost of a try. A handler raises it or returns it."""

    def __init__(self, seconds: Duration) -> None:
        """Raises ``ValueError`` or ``TypeError`` unless ``seconds`` is a ``timedelta`` or a number, at least 0."""
        self.seconds = times.seconds("seconds", seconds, 0)
        super().__init__(seconds)
