"""How an SQLite file is opened, so that no second log comes to be; and when it is made.

In order: the file is there, or may be made; nobody else opens or closes it as the last one; no other log is in use;
SQLite connects; what it has open is what stands under the three names; the log is registered. What goes wrong on
the way leaves nothing behind but a file that was made.

A file is made only where that is asked for, no log with jobs lies beside its name, and this process has never had
it open: a store that was moved away must not be followed by an empty one, beside which SQLite would delete the log
that its jobs may be in.
"""

import logging
import os
import sqlite3
import time
from collections import deque
from contextlib import suppress
from functools import partial
from operator import call
from typing import Final, NamedTuple
from urllib.parse import quote

from kqueue.model.errors import StoreError, StoreUnavailable
from kqueue.stores.sqlite.file.anchor import FENCE, OPENING, Anchor
from kqueue.stores.sqlite.file.errors import explain_opening, interrupted, locked, primary_code
from kqueue.stores.sqlite.file.handle import ANCHORS, Handle
from kqueue.stores.sqlite.file.place import is_mount_point, look, opened_here, size
from kqueue.stores.sqlite.identity import adopt, is_adopted
from kqueue.stores.sqlite.schema import STEPS, NewerSchemaError, migrate, version
from kqueue.system.clock import awake

#: Seconds between two attempts to switch a new file to write-ahead logging.
_WAL_RETRY_S: Final = 0.01


#: What a write costs in safety. FULL survives a power loss; NORMAL may then lose the last commits, but
#: survives the death of any process; OFF may damage the file (https://www.sqlite.org/pragma.html).
SYNCHRONOUS: Final = ("FULL", "NORMAL", "OFF")
#: SQLite counts the milliseconds in 32 bits.
MAX_BUSY_TIMEOUT_S: Final = 86_400


class Settings(NamedTuple):
    """How a file is to be used."""

    #: Absolute.
    path: str
    #: For messages.
    address: str
    synchronous: str
    #: Seconds.
    busy_timeout: float
    #: Whether a file that is missing is made, and its permissions then.
    create: bool
    mode: int
    logger: logging.Logger


def check_settings(synchronous: str, busy_timeout: float) -> None:
    """Raises ``ValueError`` for what is not allowed, as the user of a store has given it."""
    if synchronous not in SYNCHRONOUS:
        raise ValueError(f"store: expected synchronous to be one of {SYNCHRONOUS}, got {synchronous!r:.40}")
    if not 0 <= busy_timeout <= MAX_BUSY_TIMEOUT_S:
        raise ValueError(
            f"store: expected busy_timeout in seconds, 0 or more, at most {MAX_BUSY_TIMEOUT_S},"
            f" got {busy_timeout!r}"
        )


def connect(settings: Settings, handle: Handle) -> int:
    """Give the handle a connection, one that only reads where this process may not write; returns the floor of the
    file's fences. On an error it has none; the caller has its lock throughout.
    """
    handle.disconnect(for_good=False)  # what a signal has left half done
    real = os.path.realpath(settings.path)
    try:
        return _connect(settings, handle, real)
    except (OSError, sqlite3.Error) as error:
        from kqueue.stores.sqlite.file import read_only  # noqa: PLC0415 (see test_layout.LAZY)

        if not read_only.is_refused(error) or not read_only.may_only_be_read(real):
            if isinstance(error, OSError):
                raise explain_opening(settings.address, error) from error
            raise
    try:
        return read_only.connect(settings.path, real, settings.address, settings.busy_timeout, handle)
    except BaseException:
        handle.disconnect()
        raise


def _connect(settings: Settings, handle: Handle, real: str) -> int:
    """To read and to write."""
    handle.only_reads = False
    _find_or_make(settings, real)
    if is_mount_point(real):
        raise StoreError(
            f"{settings.address}: the file itself is a mount point, so that its log would lie in another folder"
            f" than for those who mounted it, and jobs would be lost; mount the folder that it is in there, not"
            " the file"
        )
    handle.anchor = anchor = ANCHORS.join(real, handle)
    handle.real = real
    try:
        floor = _open(settings, handle, anchor)
    except FileNotFoundError as error:
        handle.roll_back()
        handle.disconnect()
        raise _changed(settings) from error
    except BaseException:
        handle.roll_back()
        handle.disconnect()
        raise
    handle.let_go()
    return floor


def _find_or_make(settings: Settings, real: str) -> None:
    there = size(real)
    if there:
        return
    if real in ANCHORS.known:
        raise StoreUnavailable(
            f"{settings.address}: the file is gone; it was moved or removed while this process used it, so it is"
            " not made again. Move it back, with its -wal and -shm; or restart, to begin with an empty store"
        )
    if not settings.create:
        raise StoreUnavailable(
            f"{settings.address}: there is no such file, and this process may not make one; a producer makes it, or"
            " create=True"
        )
    if size(f"{real}-wal"):
        raise StoreUnavailable(
            f"{settings.address}: there is no such file, but its log {real}-wal is there and may hold jobs. To"
            " make a file would destroy them: move the file back to its log, or the log to its file"
        )
    if there is None:
        try:
            ANCHORS.make(real, settings.mode)
        except FileExistsError:
            return
        with suppress(Exception):  # a log handler of the user's that fails; the file is made
            settings.logger.info("%s: made a new store", settings.address)


def _open(settings: Settings, handle: Handle, anchor: Anchor) -> int:
    wait = settings.busy_timeout
    if anchor.lock.is_mine():
        raise interrupted(settings.address)
    if not handle.hold(anchor).take(wait) or not anchor.lock_byte(OPENING, wait):
        raise StoreUnavailable(
            f"{settings.address}: other threads or processes were opening or closing it for more than {wait:g} s;"
            " try again, or wait longer with ?busy_timeout="
        )
    # A fork waits until the connection is whole and can be closed, and no thread connects during one.
    with ANCHORS.gate:
        _see_that_its_log_is_the_only_one(settings, handle, anchor)
        if anchor.is_logged() and not anchor.keep_log(wait):
            raise locked(settings.address, wait)
        # In one step that no signal interrupts: a connection that nobody knew of would be carried across a fork.
        connecting = partial(
            sqlite3.connect,
            f"file://{quote(handle.real)}?mode=rw",
            uri=True,
            timeout=wait,
            isolation_level=None,
            check_same_thread=False,
        )
        deque(map(setattr, (handle,), ("connection",), map(call, (connecting,))), 0)
        assert handle.connection is not None
        floor = _prepare(settings, handle.real, anchor, handle.connection)
        if not anchor.keep_log(wait):
            raise locked(settings.address, wait)
        _register(settings, handle, anchor)
    ANCHORS.known.add(handle.real)
    handle.serial = object()
    _warn(settings, handle, anchor)
    return floor


def _see_that_its_log_is_the_only_one(settings: Settings, handle: Handle, anchor: Anchor) -> None:
    place, index = look(settings.path, handle.real), None
    if anchor.descriptor is not None and place.shm is not None:
        _, index = ANCHORS.index(f"{handle.real}-shm")
    log = place.log_and_shm

    def is_alone() -> bool:
        return not anchor.has_other_log(log) and (index is None or not ANCHORS.is_log_of_other(anchor, index))

    if not is_alone():
        for user in ANCHORS.users_of_log(anchor, index):
            if user is not handle:
                user.give_up_idle()
        if not is_alone():
            raise StoreUnavailable(
                f"{settings.address}: another log of this file is still in use, by a process that opened it by"
                " another path, or before its -wal or the file itself was removed or replaced; it opens once each"
                " such process has made a call or has ended"
            )


def _prepare(settings: Settings, real: str, anchor: Anchor, connection: sqlite3.Connection) -> int:
    _switch_to_wal(settings, connection)
    connection.execute(f"PRAGMA synchronous = {settings.synchronous}")
    # Some builds write zeros over all that is freed: of a large payload as much again as its add has written.
    connection.execute("PRAGMA secure_delete = FAST")
    is_current = version(connection) == len(STEPS) and is_adopted(connection, real)
    if not is_current and not anchor.lock_byte(FENCE, settings.busy_timeout):
        raise locked(settings.address, settings.busy_timeout)
    try:
        migrate(connection)
    except NewerSchemaError as error:
        raise StoreError(f"{settings.address}: {error}") from None
    return adopt(connection, real).fence_floor


def _switch_to_wal(settings: Settings, connection: sqlite3.Connection) -> None:
    """SQLite does not wait for another process that opens a new file at the same moment, so we do."""
    deadline = awake() + settings.busy_timeout
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY or awake() >= deadline:
                raise
            time.sleep(_WAL_RETRY_S)
            continue
        if mode != "wal":
            raise StoreError(
                f"{settings.address}: its file system cannot do write-ahead logging (journal mode {mode!r});"
                " put the file on a local disk"
            )
        return


def _register(settings: Settings, handle: Handle, anchor: Anchor) -> None:
    """What SQLite has open must be what the names lead to: somebody may have moved them in between."""
    place, index = look(settings.path, handle.real), None
    log = place.log_and_shm
    if log is None:
        raise _changed(settings)
    if anchor.descriptor is not None:
        found, index = ANCHORS.index(f"{handle.real}-shm")
        ours = ANCHORS.own_descriptors()
        opened = {one for number, one in opened_here() if number not in ours}
        if place.file != anchor.identity or place.shm != found or not opened >= set(place):
            raise _changed(settings)
    handle.place = place
    anchor.register(handle, log, index)


def _warn(settings: Settings, handle: Handle, anchor: Anchor) -> None:
    warnings = set()
    if anchor.descriptor is None:
        warnings.add(
            "this system or its file system has no locks of open file descriptions, so a copy of the file made by a"
            " process that uses it can lose jobs; use kqueue backup, or put the file on a local disk of a Linux"
        )
    if os.stat(handle.real).st_nlink > 1:
        warnings.add(
            "the file has more than one name (hard links); use it by one of them only, as each has its own log"
        )
    for warning in sorted(warnings - handle.warned):
        settings.logger.warning("%s: %s", settings.address, warning)
    handle.warned |= warnings


def _changed(settings: Settings) -> StoreUnavailable:
    return StoreUnavailable(
        f"{settings.address}: was moved or replaced while it was being opened; the next call tries again"
    )
