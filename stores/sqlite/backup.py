"""Backups of a SQLite store, and what is restored from one.

A backup is made by SQLite's online backup (https://www.sqlite.org/backup.html) from a second connection, never
through a descriptor of the live file, since to close one would drop this process's locks on it. It reads one
snapshot from the beginning to the end, so that writers need not wait and need not be waited for; the write-ahead
log grows as long. The copy is checked, belongs to nobody (see :mod:`kqueue.stores.sqlite.identity`), and is given
its name last.
"""

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Final
from urllib.parse import quote

from kqueue.model.errors import StoreError, StoreUnavailable
from kqueue.stores.sqlite.file.place import url
from kqueue.stores.sqlite.identity import unbind
from kqueue.stores.sqlite.schema import STEPS, NewerSchemaError, version

#: Pages that are copied at a time; a signal handler may end it between two of them.
_PAGES: Final = 1024
#: What lies beside a file that is in use, or was not closed.
_SUFFIXES: Final = ("-wal", "-shm")
#: Names that are tried for a file that is moved aside.
_MOST_ASIDE: Final = 1000


def backup(path: str, target: str, *, replace: bool, timeout: float) -> None:
    """Save the store at ``path``, which this process has open, as ``target``. ``timeout``: seconds to wait for
    locks.

    Raises ``ValueError`` for a target that is there (unless ``replace``) or is the store itself, and ``StoreError``
    for one that cannot be written or does not pass its check; then nothing is left of it.
    """
    _check_target(path, target, replace)
    with _new_file(target) as new:
        with _errors(target), closing(_connect(path, "mode=ro", timeout)) as source:
            _copy(source, new)
        _give_name(new, target, replace)


def restore(source: str, path: str, *, replace: bool, timeout: float) -> list[str]:
    """Make ``path`` a store with what the backup ``source`` holds; returns the names of what was moved aside.

    Raises ``ValueError`` for a source that is no store, and a ``path`` that is there (unless ``replace``);
    ``StoreUnavailable`` while anybody has that open; ``StoreError`` for what cannot be read or written.
    """
    if not os.path.isfile(source):
        raise ValueError(f"backup: there is no file {source}")
    _check_target(source, path, replace)
    with _new_file(path) as new:
        options = "mode=ro" if _has_log(source) else "immutable=1"
        with _errors(source), closing(_connect(source, options, timeout)) as connection:
            _check_version(source, connection)
            _copy(connection, new)
        aside = _move_aside(path, new, timeout) if replace else []
        _give_name(new, path, replace)
    return aside


def _check_target(source: str, target: str, replace: bool) -> None:
    if os.path.lexists(target):
        if not replace:
            raise ValueError(f"path: {target} is there already; give another path, or replace it")
        if os.path.exists(target) and os.path.samefile(source, target):
            raise ValueError(f"path: {target} is the same file as {source}")
    elif _has_log(target) and not replace:
        raise ValueError(
            f"path: {target}-wal lies there without its file, and may hold jobs: move it back to that, or away"
        )


def _has_log(path: str) -> bool:
    with suppress(OSError):
        return os.stat(f"{path}-wal").st_size > 0
    return False


def _connect(path: str, options: str, timeout: float) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(path)}?{options}", uri=True, timeout=timeout, isolation_level=None)


def _check_version(path: str, connection: sqlite3.Connection) -> None:
    found = version(connection)
    if found == 0:
        raise ValueError(f"backup: {path} holds no store of KQueue")
    if found > len(STEPS):
        raise StoreError(f"{path}: {NewerSchemaError(found, len(STEPS))}")


def _copy(source: sqlite3.Connection, target: str) -> None:
    """One snapshot, checked; a single file with no log beside it."""
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()  # a snapshot begins with the first read
        source.backup(copy, pages=_PAGES, progress=_let_signals_in)
        source.execute("ROLLBACK")
        copy.execute("PRAGMA journal_mode = DELETE")
        unbind(copy)
        found = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreError(f"{target}: the copy is damaged, so what was copied is: {found}")


def _let_signals_in(status: int, remaining: int, total: int) -> None:
    """Python runs signal handlers here."""


@contextmanager
def _new_file(target: str) -> Iterator[str]:
    """The name of an empty file beside ``target``, for its owner alone; removed if it is still there at the end."""
    new = f"{target}.{secrets.token_hex(4)}.part"
    try:
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise StoreError(f"{target}: cannot be written: {error.strerror}") from error
    try:
        yield new
    finally:
        for suffix in ("", "-journal", *_SUFFIXES):
            with suppress(FileNotFoundError):
                os.remove(new + suffix)


@contextmanager
def _errors(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path}: could not be copied: {error}") from error


def _give_name(new: str, target: str, replace: bool) -> None:
    """Durably. Without ``replace`` one that has come meanwhile is kept."""
    _sync(new)
    try:
        if replace:
            os.replace(new, target)
        else:
            os.link(new, target)
    except FileExistsError:
        raise ValueError(f"path: {target} is there already; give another path, or replace it") from None
    except OSError as error:
        raise StoreError(f"{target}: cannot be written: {error.strerror}") from error
    _sync(os.path.dirname(os.path.abspath(target)))


def _sync(path: str) -> None:
    """A file that nobody has open yet, or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move_aside(path: str, new: str, timeout: float) -> list[str]:
    """The file at ``path``, which ``new`` gets the owner and mode of, and what lies beside it; their new names. It
    stays under its old name too, if it can, so that there is no moment without a file.
    """
    if os.path.exists(path):
        _end_use(path, timeout)
        was = os.stat(path)
        os.chmod(new, was.st_mode & 0o777)
        with suppress(PermissionError):
            os.chown(new, was.st_uid, was.st_gid)
    kept = _free_name(path)
    moves: list[tuple[str, Callable[[str, str], None]]] = [("", os.link), *((one, os.rename) for one in _SUFFIXES)]
    moved = []
    for suffix, move in moves:
        if os.path.lexists(path + suffix):
            try:
                move(path + suffix, kept + suffix)
            except OSError as error:
                raise StoreError(f"{path}{suffix}: cannot be moved aside: {error.strerror}") from error
            moved.append(kept + suffix)
    return moved


def _end_use(path: str, timeout: float) -> None:
    """To leave write-ahead logging SQLite needs the file for itself: so it tells whether anybody has it open."""
    try:
        with closing(_connect(path, "mode=rw", timeout)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise StoreUnavailable(
                f"{url(path)}: is in use; stop every process that has it open, then restore"
            ) from error
    except sqlite3.DatabaseError:
        pass  # damaged, which may be why it is to be replaced


def _free_name(path: str) -> str:
    for number in range(1, _MOST_ASIDE):
        name = f"{path}.before-restore-{number}"
        if not any(os.path.lexists(name + suffix) for suffix in ("", *_SUFFIXES)):
            return name
    raise StoreError(f"{path}: {_MOST_ASIDE} files were moved aside before; remove some")
