"""Brokers: where pointers to jobs go. ``open_broker`` makes one from a URL."""

import logging
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from kqueue.contracts.broker import Broker
from kqueue.model.urls import showable
from kqueue.system.clock import Clock

#: beanstalkd's own.
DEFAULT_PORT = 11300
#: What may stand behind the ``?`` of a URL, in seconds.
DEFAULTS = {"timeout": 1.0, "connect_timeout": 1.0}
#: What a URL may look like.
FORMS = "beanstalk://host:port or beanstalk+unix:///path"


def open_broker(url: str, *, clock: Clock | None = None, logger: logging.Logger | None = None) -> Broker:
    """The broker that ``url`` names; connects nowhere yet.

    ``beanstalk://host:port`` (the port is 11300 unless given) or ``beanstalk+unix:///path``, with options in
    the query: ``?timeout=1.0&connect_timeout=1.0``, in seconds: what a whole exchange may take, however its bytes
    come, and what it may take to find and reach the server.
    ``clock``: the host's unless given. Raises ``ValueError`` for anything else.
    """
    if not isinstance(url, str):
        raise TypeError(f"broker: expected a URL such as {FORMS}, got {type(url).__name__}")
    try:
        parts = _split(url)
        address = _address(parts)
        seconds = DEFAULTS | _options(parts.query)
        from kqueue.brokers.beanstalk.broker import BeanstalkBroker  # noqa: PLC0415 (many queues have no broker)

        return BeanstalkBroker(
            address,
            timeout=seconds["timeout"],
            connect_timeout=seconds["connect_timeout"],
            clock=clock,
            logger=logger,
        )
    except ValueError as error:
        raise ValueError(f"broker: {error}; expected {FORMS}, got {showable(url)!r:.200}") from None


def _split(url: str) -> SplitResult:
    """Raises ``ValueError`` of our own words: those of the library quote what may be a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("this cannot be read as a URL") from None
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("a port is a number from 1 to 65535") from None
    return parts


def _address(parts: SplitResult) -> tuple[str, int] | str:
    if parts.fragment or "@" in parts.netloc:
        raise ValueError("beanstalkd has no users, and nothing may follow a '#'")
    if parts.scheme == "beanstalk":
        if not parts.hostname or parts.path not in ("", "/"):
            raise ValueError("a host, and no path, belongs behind beanstalk://")
        try:
            parts.hostname.encode("idna")  # as each connect does
        except UnicodeError:
            raise ValueError("no host can have this name") from None
        # A port of 0 is no port to connect to; .port itself refuses what is no number or above 65535.
        port = DEFAULT_PORT if parts.port is None else parts.port
        if port == 0:
            raise ValueError("port 0")
        return parts.hostname, port
    if parts.scheme == "beanstalk+unix":
        if parts.netloc or len(parts.path) < 2:
            raise ValueError("an absolute path belongs behind beanstalk+unix://")
        return unquote(parts.path)
    raise ValueError("unknown scheme")


def _options(query: str) -> dict[str, float]:
    options = {}
    try:
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError("behind the '?' belong options as in timeout=1.0&connect_timeout=1.0") from None
    for name, value in given:
        if name not in DEFAULTS:
            raise ValueError(f"unknown option, allowed are {' and '.join(DEFAULTS)}")
        try:
            options[name] = float(value)
        except ValueError:
            raise ValueError(f"{name}: expected seconds > 0") from None
    return options
