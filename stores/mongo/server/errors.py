"""What pymongo's errors mean, as errors of ours: one short line that names the server and says what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WTimeoutError,
)

from kqueue.model.errors import StoreError, StoreReadOnly, StoreUnavailable
from kqueue.model.urls import without_passwords

#: The server undid a transaction since others were faster, or since it has a new primary.
TRANSIENT = "TransientTransactionError"
_UNKNOWN = "UnknownTransactionCommitResult"
#: Of a member that is the primary no more, or ends. pymongo knows them where the whole command failed, not where
#: one of its writes did. https://github.com/mongodb/specifications: server discovery and monitoring.
_STATE_CHANGES = frozenset({91, 189, 10058, 10107, 11600, 11602, 13435, 13436})
#: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml: Unauthorized.
_UNAUTHORIZED = 13
#: What it was that the user may not do, where it writes.
_WRITES = re.compile(r"to execute command \{ (insert|update|delete|findAndModify|createIndexes|create|drop)\w*:")
#: Where the driver's text goes on with its settings, its view of all servers, or the whole reply.
_REST = re.compile(r" \(configured timeouts|, Timeout: |, Topology Description|, full error|[\r\n]")
#: Characters of it in ours at most; the rest is in the chained one.
_MOST_CHARS = 240


def named(error: PyMongoError, address: str) -> StoreError:
    """``error`` as ours, which it is chained to."""
    said = without_passwords(_REST.split(_said(error), maxsplit=1)[0])[:_MOST_CHARS]
    ours: StoreError
    if _may_pass(error) or may_be_done(error):
        sent = not isinstance(error, ServerSelectionTimeoutError)
        unknown = "; what was asked may have been done all the same" if sent else ""
        ours = StoreUnavailable(
            f"{address}: MongoDB does not answer ({said}); check that it runs, has a primary and a majority,"
            f" and can be reached from here{unknown}"
        )
        ours.may_be_done = sent
    elif error.has_error_label(TRANSIENT):
        ours = StoreUnavailable(f"{address}: others change the same for too long ({said}); try again")
    elif is_read_only(error):
        ours = StoreReadOnly(
            f"{address}: this user may only read it, and nothing was changed; to write, give the user the role"
            " readWrite"
        )
    else:
        ours = StoreError(f"{address}: MongoDB refuses ({said}); check the user, its rights and the URL's options")
    ours.__cause__ = error
    return ours


def is_read_only(error: PyMongoError) -> bool:
    """Whether it was refused since the user has no right to write."""
    code = error.code if isinstance(error, OperationFailure) else None
    return code == _UNAUTHORIZED and _WRITES.search(str(error)) is not None


def may_be_done(error: PyMongoError) -> bool:
    """Whether nobody can tell what became of the transaction that ended so."""
    return error.has_error_label(_UNKNOWN)


@contextmanager
def named_errors(address: str) -> Iterator[None]:
    """Raise what pymongo raises as :func:`named`."""
    try:
        yield
    except PyMongoError as error:
        raise named(error, address) from error


@contextmanager
def suppress_read_only() -> Iterator[None]:
    """Go on where the user may only read: for what is written at an open, and can be left."""
    try:
        yield
    except OperationFailure as error:
        if not is_read_only(error):
            raise


def _may_pass(error: PyMongoError) -> bool:
    if isinstance(error, BulkWriteError):
        return all(one.get("code") in _STATE_CHANGES for one in _write_errors(error))
    if isinstance(error, OperationFailure) and error.code in _STATE_CHANGES:
        return True
    return isinstance(error, ConnectionFailure | WTimeoutError | ExecutionTimeout)


def lost_its_primary(error: BulkWriteError) -> bool:
    """Whether the member was the primary no more in the midst of it: then what it has done may be undone."""
    return any(one.get("code") in _STATE_CHANGES for one in _write_errors(error))


def _write_errors(error: BulkWriteError) -> list[dict[str, Any]]:
    return list((error.details or {}).get("writeErrors", ()))


def _said(error: PyMongoError) -> str:
    """What the server said. A ``BulkWriteError`` itself only says that there were errors."""
    details = (isinstance(error, BulkWriteError) and error.details) or {}
    for one in [*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())]:
        return str(one["errmsg"])
    return str(error)
