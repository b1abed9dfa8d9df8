"""Where the payloads of the SQLite store are: small ones in their job's row, all others in a table of their own.

A claim, and an end that keeps the job, write its row again, with all that is in it. So what is large stands apart,
under the key that the row was added with: it is written once, then. A row that has got another key since, to stand
behind others, says so in ``payload_key``; new keys are larger, so that one is given to no other row meanwhile.
In its place the row says how many bytes it has, a number where else there are bytes. It goes with its row by a
trigger, in the same transaction and whoever deletes that, so that none is ever left behind.

Rows that an older version added keep their payload in the row, whatever its length, until they end.
"""
# ruff: noqa: S608 (only constants are joined into the text)

import sqlite3
from collections.abc import Sequence
from typing import Final

from kqueue.model.job import Row

#: Bytes of the largest payload that stays in its row. To write so few again costs less than a row of their own.
MOST_IN_ROW: Final = 512

#: The column that has the payload, or how many bytes of it stand apart.
COLUMN: Final = "payload_or_size"

_APART: Final = "FROM kqueue_payloads AS apart WHERE apart.key = coalesce(job.payload_key, job.key)"
#: The columns of fields that have other names.
NAMES: Final = {"payload": COLUMN, "encoding": "payload_encoding"}
#: Fields that no row of the table has: see :data:`RESULT` and :data:`PROGRESS`.
APART: Final = frozenset({"result", "progress"})
#: The payload of ``job``.
PAYLOAD: Final = f"iif(typeof(job.{COLUMN}) = 'integer', (SELECT apart.payload {_APART}), job.{COLUMN})"

#: In an update: the row goes behind all others, and its payload stays where it is.
GO_LAST: Final = f"""
    payload_key = iif(typeof({COLUMN}) = 'integer', coalesce(payload_key, key), NULL),
    key = (SELECT max(key) + 1 FROM kqueue_jobs NOT INDEXED)
"""

#: What came of ``job``, if it is done. Its key changes no more, so that its result stands under that.
RESULT: Final = (
    "iif(job.state = 'done', (SELECT result FROM kqueue_results AS apart WHERE apart.key = job.key), NULL)"
)

#: How far it is. What has told that has a history, see :mod:`kqueue.stores.sqlite.side_tables`.
PROGRESS: Final = """iif(
    job.history IS NOT NULL, (SELECT progress FROM kqueue_progress AS apart WHERE apart.job_id = job.id), NULL
)"""

PUT_APART: Final = "INSERT INTO kqueue_payloads (key, payload) SELECT key, ? FROM kqueue_jobs WHERE id = ?"
FIND_APART: Final = f"SELECT (SELECT apart.payload {_APART}) FROM kqueue_jobs AS job WHERE job.key = ?"


def columns(names: Sequence[str]) -> str:
    """What a statement reads of ``job`` for these fields of a :class:`~kqueue.model.job.Row`; none of
    :data:`APART`.
    """
    special = {"payload": PAYLOAD} | dict.fromkeys(APART, "NULL")
    return ", ".join(special.get(name, f"job.{NAMES.get(name, name)}") for name in names)


def columns_in_row(names: Sequence[str]) -> str:
    """The same, without what stands apart: see :func:`payload_apart`."""
    return ", ".join(f"job.{NAMES.get(name, name)}" for name in names)


def payload_apart(connection: sqlite3.Connection, key: int) -> bytes:
    """That of the row with this key."""
    ((payload,),) = connection.execute(FIND_APART, (key,)).fetchall()
    return bytes(payload)


def kept(payload: bytes) -> bytearray | int:
    """What the column has of it. Python's module looks for an adapter of each value that is bound, and raises and
    drops an error for each that it does not find: for ``bytes``, but not for a ``bytearray``.
    """
    size = len(payload)
    return bytearray(payload) if size <= MOST_IN_ROW else size


def as_kept(row: Row) -> Row:
    """With what the column has as its ``payload``."""
    size = len(row.payload)
    return row if size <= MOST_IN_ROW else row._replace(payload=size)  # type: ignore[arg-type]


def put_apart(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """The payloads of these rows, which were just added, that are too large for them."""
    apart = [(row.payload, row.id) for row in rows if len(row.payload) > MOST_IN_ROW]
    if apart:
        connection.executemany(PUT_APART, apart)
