"""What an operator does to the rows of a SQLite file, in one transaction: delete, revive, hasten, change, purge."""

from collections.abc import Mapping, Sequence
from typing import Any

from kqueue.contracts.repair import Due
from kqueue.model.reasons import storable
from kqueue.stores.sqlite import side_tables as records
from kqueue.stores.sqlite import statements as sql
from kqueue.stores.sqlite.claim import json_set
from kqueue.stores.sqlite.file.file import SqliteFile


def delete(file: SqliteFile, ids: Sequence[str]) -> int:
    """How many there were."""
    if not ids:
        return 0
    with file.write() as connection:
        records.free_keys(connection, ids)
        return connection.executemany(sql.DELETE, [(id,) for id in ids]).rowcount


def revive(file: SqliteFile, ids: Sequence[str], reason: str, now: float, put_at: float | None) -> list[Due]:
    """Those that were dead."""
    with file.write() as connection:
        dead = connection.execute(sql.FIND_DEAD, {"ids": json_set(ids)}).fetchall()
        connection.executemany(sql.REVIVE, [(now, put_at, now, storable(reason), record[0]) for record in dead])
        connection.executemany(sql.FORGET_END, [record[:1] for record in dead])
    return [Due(id, type, priority, now, put_at) for id, type, priority in dead]


def hasten(file: SqliteFile, ids: Sequence[str], now: float, put_at: float | None) -> list[Due]:
    """Those that were delayed."""
    with file.write() as connection:
        found = connection.execute(sql.FIND_DELAYED, {"ids": json_set(ids)}).fetchall()
        connection.executemany(sql.HASTEN, [(now, put_at, now, record[0]) for record in found])
    return [Due(id, type, priority, now, put_at) for id, type, priority in found]


def change(file: SqliteFile, values: Mapping[str, Any]) -> Due | None:
    """The row as it is then; None if it does not wait. ``values``: of the statement."""
    with file.write() as connection:
        found = connection.execute(sql.CHANGE, values).fetchall()
    return Due._make(found[0]) if found else None


def purge(file: SqliteFile, type: str, most: int) -> int:
    """How many rows were deleted."""
    with file.write() as connection:
        gone: list[str | None] = []
        for statement in sql.PURGES:
            values = {"type": type, "most": most - len(gone)}
            gone += [id for (id,) in connection.execute(statement, values).fetchall()]
        records.free_keys(connection, [id for id in gone if id is not None])
    freed = most if len(gone) < most else 0
    while freed and freed == most:
        with file.write() as connection:
            freed = records.free_keys_without_job(connection, type, most)
    return len(gone)
