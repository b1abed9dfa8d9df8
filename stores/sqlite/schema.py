"""The tables of the SQLite store, and the steps from each version of them to the next.

The version stands in ``kqueue_meta``, not in ``PRAGMA user_version``, since a user's application may keep its
own tables, and its own version, in the same file.

``key`` is the store's own row key and the order in which jobs were added; the public id is text. The payload
stands behind what every job has, so that to read that SQLite never has to walk through a large one. What came
with version 2 stands behind it. A job that uses none of that has NULL there, which the record's header tells.

Indexes cost time in every add, claim and settle, so each is partial, and each serves what is named here:

====================  =================================================================================
index                 serves
====================  =================================================================================
kqueue_jobs_ready     claim without ids, has_ready, ready_types, counts, purge
kqueue_jobs_put       find_lost: rows whose pointer was put; empty without a broker
kqueue_jobs_unput     find_unput: rows known to have no pointer; empty with a broker that answers, but for what is
                      held. And find_misdated
kqueue_jobs_lease     recover, claimed_by, claimed_by_process, find_misdated: by TTR, of which there are few, so
                      that both the leases that are over and those that are too long stand together
kqueue_jobs_delayed   promote, next_run_at; ``type`` in it lets counts and purge read the index alone
kqueue_jobs_ended     find, already in its order; ``type`` in it lets counts and purge read the index alone
kqueue_jobs_gate      limited claims, admit, held_types; counts and purge of the held. It has all that they ask:
                      who waits at a gate, who was admitted, in order; what runs of a type and key, until when
kqueue_jobs_kept      expire
kqueue_jobs_asked     find_misdated: when it was asked for, of what waits for its time, is kept, or is dead
====================  =================================================================================

A process of a former version may have the file open while it is migrated, and must not claim what it would misread.
So a step that changes what a column means gives it another name too. SQLite prepares each statement anew once the
tables have changed: the claims and adds of a former version then fail, since they name what has gone, and its
process looks at the version (:func:`kqueue.stores.sqlite.file.errors.explain`). What it runs it can still settle.

Those of gates and of what is kept hold no row of a job that uses neither limits nor a retention. Other tables:
``kqueue_payloads`` (see :mod:`kqueue.stores.sqlite.payloads`), ``kqueue_tracebacks`` (of runs, which are known by
their lease; apart from the row, since each claim writes that again), ``kqueue_results`` (of done jobs, by the key
of their row, with which they go), ``kqueue_progress`` and ``kqueue_log`` (what runs have told), ``kqueue_ends``
(which jobs are done or dead, in the order in which they ended), ``kqueue_unique`` (who has which key; of two that
add the same at once its primary key lets one in), ``kqueue_starts`` (how many a limited claim took when, pruned by
the next), ``kqueue_ticks``, ``kqueue_paused``, ``kqueue_workers``.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final, TypeAlias

#: The statements of each step: the first leads from an empty file to version 1, and so on.
Steps: TypeAlias = Sequence[Sequence[str]]

STEPS: Final[Steps] = (
    (
        """
        CREATE TABLE kqueue_jobs (
            key          INTEGER PRIMARY KEY,
            id           TEXT    NOT NULL UNIQUE,
            type         TEXT    NOT NULL,
            encoding     TEXT    NOT NULL,
            priority     INTEGER NOT NULL,
            state        TEXT    NOT NULL,
            delay        REAL    NOT NULL,
            run_at       REAL    NOT NULL,
            ttr          REAL    NOT NULL,
            fence        INTEGER NOT NULL,
            tries        INTEGER NOT NULL,
            failures     INTEGER NOT NULL,
            crashes      INTEGER NOT NULL,
            suspicion    INTEGER NOT NULL,
            alone        INTEGER NOT NULL,
            lease_owner  TEXT,
            lease_until  REAL,
            reason       TEXT,
            created_at   REAL    NOT NULL,
            put_at       REAL,
            payload      BLOB    NOT NULL
        )
        """,
        """
        CREATE INDEX kqueue_jobs_ready ON kqueue_jobs (type, priority)
        WHERE state = 'ready'
        """,
        """
        CREATE INDEX kqueue_jobs_put ON kqueue_jobs (type, priority, put_at)
        WHERE state = 'ready' AND put_at IS NOT NULL
        """,
        """
        CREATE INDEX kqueue_jobs_unput ON kqueue_jobs (state, run_at)
        WHERE put_at IS NULL AND (state = 'ready' OR state = 'delayed')
        """,
        """
        CREATE INDEX kqueue_jobs_lease ON kqueue_jobs (lease_until)
        WHERE state = 'running'
        """,
        """
        CREATE INDEX kqueue_jobs_delayed ON kqueue_jobs (run_at, type)
        WHERE state = 'delayed'
        """,
        """
        CREATE INDEX kqueue_jobs_ended ON kqueue_jobs (state, id, type)
        WHERE state = 'dead' OR state = 'done'
        """,
    ),
    (
        "ALTER TABLE kqueue_jobs ADD COLUMN gate TEXT",
        "ALTER TABLE kqueue_jobs ADD COLUMN keep_until REAL",
        "ALTER TABLE kqueue_jobs ADD COLUMN history TEXT",
        "ALTER TABLE kqueue_jobs ADD COLUMN unique_key TEXT",
        "ALTER TABLE kqueue_jobs ADD COLUMN limit_key TEXT",
        """
        CREATE INDEX kqueue_jobs_gate ON kqueue_jobs (state, gate, priority, key, limit_key, lease_until)
        WHERE gate IS NOT NULL
        """,
        """
        CREATE INDEX kqueue_jobs_kept ON kqueue_jobs (keep_until)
        WHERE keep_until IS NOT NULL
        """,
        """
        CREATE TABLE kqueue_unique (
            type         TEXT    NOT NULL,
            key          TEXT    NOT NULL,
            job_id       TEXT    NOT NULL,
            until        REAL    NOT NULL,
            PRIMARY KEY (type, key)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX kqueue_unique_job ON kqueue_unique (job_id)",
        """
        CREATE TABLE kqueue_starts (
            type         TEXT    NOT NULL,
            at           REAL    NOT NULL,
            jobs         INTEGER NOT NULL,
            PRIMARY KEY (type, at)
        ) WITHOUT ROWID
        """,
        "CREATE TABLE kqueue_ticks (schedule TEXT PRIMARY KEY, last REAL NOT NULL) WITHOUT ROWID",
        "CREATE TABLE kqueue_paused (type TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID",
        """
        CREATE TABLE kqueue_workers (
            id           TEXT    PRIMARY KEY,
            host         TEXT    NOT NULL,
            pid          INTEGER NOT NULL,
            types        TEXT    NOT NULL,
            started_at   REAL    NOT NULL,
            seen_at      REAL    NOT NULL,
            note         TEXT    NOT NULL
        ) WITHOUT ROWID
        """,
    ),
    (
        "ALTER TABLE kqueue_jobs ADD COLUMN scheduled_for REAL",
        "ALTER TABLE kqueue_jobs ADD COLUMN asked_at REAL",
        # Only the job of a tick was added after its time.
        "UPDATE kqueue_jobs SET scheduled_for = run_at WHERE delay = 0 AND run_at < created_at",
        # With IN, so that it serves no query for one state, which has an index of its own.
        """
        CREATE INDEX kqueue_jobs_asked ON kqueue_jobs (coalesce(asked_at, created_at))
        WHERE state IN ('delayed', 'done', 'dead')
        """,
        "DROP INDEX kqueue_jobs_unput",
        """
        CREATE INDEX kqueue_jobs_unput ON kqueue_jobs (state, run_at)
        WHERE put_at IS NULL AND (state = 'ready' OR state = 'delayed' OR state = 'held')
        """,
        "DROP INDEX kqueue_jobs_lease",
        """
        CREATE INDEX kqueue_jobs_lease ON kqueue_jobs (ttr, lease_until)
        WHERE state = 'running'
        """,
        "ALTER TABLE kqueue_unique ADD COLUMN taken_at REAL",
        "CREATE INDEX kqueue_unique_taken ON kqueue_unique (taken_at) WHERE taken_at IS NOT NULL",
        "ALTER TABLE kqueue_ticks ADD COLUMN added TEXT",
    ),
    (
        # Writes no row: those that are there keep their payload (see kqueue.stores.sqlite.payloads). A view of the
        # user's that no longer works must not stand in the way: errors in the schema are only passed over so.
        "PRAGMA writable_schema = ON",
        "ALTER TABLE kqueue_jobs RENAME COLUMN payload TO payload_or_size",
        "PRAGMA writable_schema = OFF",
        "ALTER TABLE kqueue_jobs ADD COLUMN payload_key INTEGER",
        "CREATE TABLE kqueue_payloads (key INTEGER PRIMARY KEY, payload BLOB NOT NULL)",
        """
        CREATE TRIGGER kqueue_jobs_payload AFTER DELETE ON kqueue_jobs WHEN typeof(old.payload_or_size) = 'integer'
        BEGIN
            DELETE FROM kqueue_payloads WHERE key = coalesce(old.payload_key, old.key);
        END
        """,
    ),
    (
        # Delayed, done or dead, which all begin with a d. For an IN of three SQLite makes a table at each change of
        # each row. And so too this index serves no query for one state, which has an index of its own.
        "DROP INDEX kqueue_jobs_asked",
        """
        CREATE INDEX kqueue_jobs_asked ON kqueue_jobs (coalesce(asked_at, created_at))
        WHERE state >= 'd' AND state < 'e'
        """,
    ),
    (
        # A process of the former version would run a job by other retries than it was added with. It names this
        # column in its claims and adds, and where it settles it does not.
        "PRAGMA writable_schema = ON",
        "ALTER TABLE kqueue_jobs RENAME COLUMN encoding TO payload_encoding",
        "PRAGMA writable_schema = OFF",
        "ALTER TABLE kqueue_jobs ADD COLUMN retries TEXT",
        """
        CREATE TABLE kqueue_tracebacks (
            key          INTEGER PRIMARY KEY,
            job_id       TEXT    NOT NULL,
            lease_owner  TEXT    NOT NULL,
            traceback    TEXT    NOT NULL
        )
        """,
        "CREATE INDEX kqueue_tracebacks_job ON kqueue_tracebacks (job_id)",
        """
        CREATE TRIGGER kqueue_jobs_tracebacks AFTER DELETE ON kqueue_jobs WHEN old.history IS NOT NULL
        BEGIN
            DELETE FROM kqueue_tracebacks WHERE job_id = old.id;
        END
        """,
    ),
    (
        # A process of the former version would not keep what its add asked to keep. It names this column in its
        # claims and adds, and where it settles it does not.
        "PRAGMA writable_schema = ON",
        "ALTER TABLE kqueue_jobs RENAME COLUMN retries TO own_options",
        "PRAGMA writable_schema = OFF",
        "CREATE TABLE kqueue_results (key INTEGER PRIMARY KEY, result BLOB NOT NULL)",
        """
        CREATE TABLE kqueue_progress (
            job_id       TEXT    PRIMARY KEY,
            fence        INTEGER NOT NULL,
            number       INTEGER NOT NULL,
            progress     TEXT
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE kqueue_log (
            key          INTEGER PRIMARY KEY,
            job_id       TEXT    NOT NULL,
            at           REAL    NOT NULL,
            tries        INTEGER NOT NULL,
            text         TEXT    NOT NULL
        )
        """,
        "CREATE INDEX kqueue_log_job ON kqueue_log (job_id)",
        # AUTOINCREMENT: no number is given twice, so that who follows them misses none. What had ended before this
        # version has none.
        """
        CREATE TABLE kqueue_ends (
            number       INTEGER PRIMARY KEY AUTOINCREMENT,
            job_id       TEXT    NOT NULL UNIQUE
        )
        """,
        # What ends and is kept has a history, and so has what has told something.
        "DROP TRIGGER kqueue_jobs_tracebacks",
        """
        CREATE TRIGGER kqueue_jobs_tracebacks AFTER DELETE ON kqueue_jobs WHEN old.history IS NOT NULL
        BEGIN
            DELETE FROM kqueue_tracebacks WHERE job_id = old.id;
            DELETE FROM kqueue_results WHERE old.state = 'done' AND key = old.key;
            DELETE FROM kqueue_progress WHERE job_id = old.id;
            DELETE FROM kqueue_log WHERE job_id = old.id;
            DELETE FROM kqueue_ends WHERE job_id = old.id;
        END
        """,
    ),
)

#: Of any type: the time of the last sweep is a number, settings are text.
_CREATE_META: Final = "CREATE TABLE IF NOT EXISTS kqueue_meta (name TEXT PRIMARY KEY, value NOT NULL)"
_HAS_META: Final = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'kqueue_meta'"
_VERSION: Final = "SELECT value FROM kqueue_meta WHERE name = 'schema_version'"
_SET_VERSION: Final = "INSERT OR REPLACE INTO kqueue_meta (name, value) VALUES ('schema_version', ?)"


class NewerSchemaError(Exception):
    """The file was written by a newer KQueue. Nothing was changed."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"its schema has version {found}, and this KQueue knows versions up to {known}; upgrade kqueue"
        )


def migrate(connection: sqlite3.Connection, steps: Steps = STEPS) -> None:
    """Bring the file to the newest version, in one transaction. Costs one read if it is there already.

    Raises :class:`NewerSchemaError` if the file is ahead of ``steps``. On any other error the caller rolls back.
    """
    if check_version(connection, steps) == len(steps):
        return
    connection.execute("BEGIN IMMEDIATE")
    # Read again under the write lock: another process may have migrated in between.
    for statements in steps[check_version(connection, steps) :]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(_CREATE_META)
    connection.execute(_SET_VERSION, (len(steps),))
    connection.execute("COMMIT")


def version(connection: sqlite3.Connection) -> int:
    """The schema's version in this file; 0 if KQueue has no tables in it."""
    if connection.execute(_HAS_META).fetchone() == (0,):
        return 0
    found = connection.execute(_VERSION).fetchone()
    return 0 if found is None else int(found[0])


def check_version(connection: sqlite3.Connection, steps: Steps = STEPS) -> int:
    """The version. Raises :class:`NewerSchemaError` if it is ahead of ``steps``."""
    found = version(connection)
    if found > len(steps):
        raise NewerSchemaError(found, len(steps))
    return found
