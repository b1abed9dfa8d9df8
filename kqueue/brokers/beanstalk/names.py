"""From a host's name to its addresses, within a time: a name server that is silent holds up nobody for long.

The system's own look-up has no time-out that a caller could set, and can take minutes. So it runs in a thread of
its own, and whoever needs its answer waits for as long as he may. There is one thread for a host at most; what it
finds after its askers have gone is kept. Where a name server is silent, the last addresses that were right will do.
"""

import ipaddress
import socket
import threading
from typing import Any, NamedTuple

from kqueue.system.forks import PerProcess
from kqueue.system.threads import Background


class Address(NamedTuple):
    """Where to connect to."""

    family: int
    #: As ``socket.connect`` takes it for this family.
    place: tuple[Any, ...] | str


class Names:
    """The addresses of one host and port. Shared by threads; a forked child asks anew."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._is_name = _is_name(host)
        self._lookups = PerProcess(_Lookups)

    def addresses(self, seconds: float) -> list[Address]:
        """All of them, in the order to be tried; waits ``seconds`` at most, half of it where some are known.

        Raises ``OSError`` or ``UnicodeError`` as the look-up does, and ``TimeoutError``.
        """
        if not self._is_name:
            return _look_up(self._host, self._port)
        lookups = self._lookups.get()
        lookup = lookups.current
        if lookup is None or lookup.is_over:
            # Of two threads that come at once each may begin one; the later is kept.
            lookup = _Lookup(self._host, self._port, lookups)
            Background(lookup.run, f"kqueue looks up {self._host}")
            lookups.current = lookup
        if lookup.wait(seconds / 2 if lookups.known else seconds):
            if lookup.error is None:
                return lookups.known
            if not _may_pass(lookup.error):
                raise lookup.error
        if lookups.known:
            return lookups.known
        raise lookup.error or TimeoutError(f"no name server told within {seconds:g} s where {self._host} is")


class _Lookups:
    """Of one host, in one process."""

    def __init__(self) -> None:
        self.current: _Lookup | None = None
        #: The last answer.
        self.known: list[Address] = []


class _Lookup:
    """One look-up of a name, in a thread of its own."""

    def __init__(self, host: str, port: int, lookups: _Lookups) -> None:
        self._host = host
        self._port = port
        self._lookups = lookups
        self.error: OSError | UnicodeError | None = None
        self.is_over = False
        # Held until it is over. Of an Event the own lock may stay held where a signal interrupts a wait.
        self._running = threading.Lock()
        self._running.acquire()

    def run(self) -> None:
        try:
            self._lookups.known = _look_up(self._host, self._port)
        except (OSError, UnicodeError) as error:
            self.error = error
        except Exception as error:  # whatever is patched into the place of the look-up
            self.error = OSError(f"{type(error).__name__}: {error}")
        finally:
            self.is_over = True
            self._running.release()

    def wait(self, seconds: float) -> bool:
        """Whether it was over within ``seconds``. Any number of threads may wait."""
        if not self.is_over and self._running.acquire(timeout=max(0.0, seconds)):
            self._running.release()  # for the next who waits
        return self.is_over


def _look_up(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [Address(family, place) for family, _, _, _, place in found]


def _is_name(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def _may_pass(error: OSError | UnicodeError) -> bool:
    """Whether the name server did not answer, rather than that there is no such name."""
    return isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
