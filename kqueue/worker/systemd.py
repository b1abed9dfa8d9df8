"""Tells systemd how a service gets on: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html."""

import logging
import os
import socket
from collections.abc import MutableMapping

#: What systemd gives a service, and no child of it.
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Systemd:
    """Of one service. It does nothing where nobody listens, and never waits."""

    def __init__(self, environment: MutableMapping[str, str], logger: logging.Logger) -> None:
        """``environment``: what is said there is taken out, so that nothing that is started here speaks for it."""
        address, usec, pid = (environment.pop(name, "") for name in VARIABLES)
        self._logger = logger
        # The first character of an abstract one stands for a zero byte.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        is_ours = pid in {"", str(os.getpid())}
        #: Seconds between two words at most, half of what systemd waits; None if it waits for none.
        self.every_s = int(usec) / 2e6 if self._address and is_ours and usec.isdecimal() and int(usec) else None

    def ready(self, status: str) -> None:
        """It has started. ``status``: in a few words, for ``systemctl status``."""
        self._say(f"READY=1\nSTATUS={status}")

    def gets_on(self) -> None:
        """To be said again and again; systemd ends a service that does not."""
        if self.every_s is not None:
            self._say("WATCHDOG=1")

    def stops(self) -> None:
        """It is about to end, by itself or by a signal."""
        self._say("STOPPING=1\nSTATUS=running jobs end")

    def _say(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
                link.setblocking(False)
                link.sendto(text.encode(), self._address)
        except OSError as error:
            self._logger.warning("systemd is not told any more: NOTIFY_SOCKET: %s", error)
            self._address = ""
