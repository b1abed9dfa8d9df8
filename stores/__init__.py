"""Stores: where jobs are kept. :func:`open_store` makes one from its URL.

==========================================  =====================================================
URL                                         store
==========================================  =====================================================
``memory:``                                 this process only, gone when it ends
``sqlite:///relative.db``                   a file, relative to the current folder
``sqlite:////absolute.db``                  a file, by its full path; ``%3F`` stands for a ``?``
``mongodb://host:port/db``                  a MongoDB replica set (``pip install 'kqueue[mongo]'``)
``mongodb+srv://host/db``                   the same, found by DNS
==========================================  =====================================================

SQLite takes options: ``?synchronous=FULL|NORMAL|OFF`` (FULL by default: durable at power loss),
``?busy_timeout=5`` (seconds to wait for another write, of this process or another; may be a fraction) and
``?mode=0600`` (permissions of a file that is made; one that is there keeps its own).
"""

if __name__ != "kqueue.stores":
    # The folder lies at the top of the repository, and a user may well have a package `stores` of his own.
    raise ImportError(
        f"this is kqueue.stores, and it was imported as {__name__!r};"
        " import kqueue.stores, and take KQueue's source folder off sys.path"
    )

import logging
import re
from typing import Final
from urllib.parse import parse_qsl, unquote

from kqueue.contracts.store import JobStore
from kqueue.model.errors import StoreError
from kqueue.model.urls import showable

__all__ = ["open_store"]

_SQLITE: Final = "sqlite:///"
_MONGO: Final = ("mongodb://", "mongodb+srv://")
_MODE: Final = re.compile("[0-7]{3,4}")
_FORMS: Final = "memory:, sqlite:///relative.db, sqlite:////absolute.db, mongodb://host:port/db"


def open_store(url: str, *, create: bool = True, logger: logging.Logger | None = None) -> JobStore:
    """The store that ``url`` names. Nothing is connected or made before its first use.

    ``create``: whether that use makes an SQLite file that is missing, which ``logger`` is told of; else it raises
    :class:`~kqueue.model.errors.StoreUnavailable`. Other stores need nothing made.

    It imports that store alone: each pays with milliseconds, and a process has one of them. Raises ``TypeError`` or
    ``ValueError``, naming ``store``, for what is no such URL, and
    :class:`~kqueue.model.errors.StoreError` if the store's driver is not installed.
    """
    if not isinstance(url, str):
        raise TypeError(f"store: expected a URL ({_FORMS}), got {type(url).__name__}")
    if url == "memory:":
        from kqueue.stores.memory.store import MemoryStore  # noqa: PLC0415 (see :func:`open_store`)

        return MemoryStore()
    if url.startswith(_SQLITE):
        return _sqlite(url, create, logger)
    if url.startswith(_MONGO):
        return _mongo(url)
    raise ValueError(f"store: expected one of {_FORMS}; got {showable(url)!r:.200}")


def _sqlite(url: str, create: bool, logger: logging.Logger | None) -> JobStore:
    path, _, query = url.removeprefix(_SQLITE).partition("?")
    options = {"synchronous": "FULL", "busy_timeout": "5", "mode": "0600"}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in options:
            *some, last = options
            raise ValueError(
                f"store: expected the options {', '.join(some)} and {last} for SQLite, got {name!r:.40}"
            )
        options[name] = value
    try:
        busy_timeout = float(options["busy_timeout"])
    except ValueError:
        raise ValueError(f"store: expected busy_timeout in seconds, got {options['busy_timeout']!r:.40}") from None
    if not _MODE.fullmatch(options["mode"]):
        raise ValueError(f"store: expected mode as permissions in octal, such as 0660, got {options['mode']!r:.40}")
    from kqueue.stores.sqlite.store import SqliteStore  # noqa: PLC0415 (see :func:`open_store`)

    return SqliteStore(
        unquote(path),
        synchronous=options["synchronous"],
        busy_timeout=busy_timeout,
        mode=int(options["mode"], 8),
        create=create,
        logger=logger,
    )


def _mongo(url: str) -> JobStore:
    try:
        from kqueue.stores.mongo.store import MongoStore  # noqa: PLC0415 (its driver is optional)
    except ModuleNotFoundError as error:
        if error.name not in {"pymongo", "bson", "gridfs"}:
            raise
        raise StoreError(
            "store: a mongodb:// URL needs pymongo, which is not installed; pip install 'kqueue[mongo]'"
        ) from error
    return MongoStore(url)
