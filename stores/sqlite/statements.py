"""Every statement about jobs that the SQLite store runs, but for those of gates, which stand with their code.

States stand in the text, never as parameters: only so can SQLite see that a partial index applies. A list of
ids or types is one JSON parameter, read in its order: CROSS JOIN keeps the left table outside
(https://www.sqlite.org/optoverview.html#crossjoin). INDEXED BY stands where statistics of another day, which
ANALYZE has left in the file, could make SQLite read the whole table (https://www.sqlite.org/lang_indexedby.html).
"""
# ruff: noqa: S608 (only constants are joined into the text)

from typing import Final

from kqueue.contracts.admission import SPACE_IN_GATES
from kqueue.model.history import MOST, TRACEBACKS
from kqueue.model.job import Row, State
from kqueue.stores.sqlite.payloads import APART, GO_LAST, PROGRESS, RESULT, columns

_COLUMNS: Final = columns(Row._fields)
_BY_ID: Final = "FROM json_each(:ids) AS wanted CROSS JOIN kqueue_jobs AS job ON job.id = wanted.value"
_OF_TYPES: Final = "job.type IN (SELECT value FROM json_each(:types))"
_DUE: Final = "id, type, priority, run_at, put_at"


def in_gates(type: str) -> str:
    """As :func:`kqueue.contracts.admission.type_in_gates`."""
    return f"replace({type}, ' ', char({ord(SPACE_IN_GATES)}))"


def gates_of(type: str, gate: str) -> str:
    """Whether the gate is one of the type's, which stand together as text."""
    return f"{gate} >= {in_gates(type)} AND {gate} < {in_gates(type)} || '!'"


# -- a job's way -----------------------------------------------------------------------------------------

#: What a claim sets, does not hand out, or finds in no row that it may take. So it is not read, which costs.
_KNOWN_TO_CLAIMS: Final = {"state", "alone", "lease_owner", "lease_until", "keep_until", "history", *APART}
#: What a row that was never claimed has at 0, and what nearly none has at all. None is a number with a fraction, of
#: which JSON would keep 15 digits.
_COUNTS: Final = ("fence", "tries", "failures", "crashes", "suspicion")
_EXTRAS: Final = ("reason", "gate", "unique_key", "limit_key", "own_options")
RARE_FIELDS: Final = (*_COUNTS, *_EXTRAS)
#: What a claim reads as columns: each costs as much as several in one list. Behind them it reads :data:`RARE`.
CLAIM_FIELDS: Final = [name for name in Row._fields if name not in {*_KNOWN_TO_CLAIMS, *RARE_FIELDS}]
#: The rare fields as JSON, a list; NULL where all are as in a new row.
RARE: Final = f"""
    iif(
        {" AND ".join(f"job.{name} = 0" for name in _COUNTS)}
        AND coalesce({", ".join(f"job.{name}" for name in _EXTRAS)}) IS NULL,
        NULL, json_array({", ".join(f"job.{name}" for name in RARE_FIELDS)})
    )
"""
_CLAIM_COLUMNS: Final = f"{columns(CLAIM_FIELDS)}, {RARE}"

#: A claim that names ids looks at these alone.
WANTED: Final = f"""
    {_BY_ID}
    WHERE (job.state = 'ready' OR (job.state = 'delayed' AND job.run_at <= :now)) AND {_OF_TYPES}
"""

CANDIDATES_BY_ID: Final = f"SELECT job.key, {_CLAIM_COLUMNS} {WANTED}"

#: One index range, already in order.
CANDIDATES_OF_TYPE: Final = f"""
    SELECT job.key, {_CLAIM_COLUMNS} FROM kqueue_jobs AS job
    WHERE job.state = 'ready' AND job.type = :type
    ORDER BY job.priority, job.key
"""

#: Of several types, whose ranges are merged: the first places of each,
HEADS_OF_TYPES: Final = """
    SELECT job.type, job.priority, job.key FROM json_each(:types) AS wanted CROSS JOIN kqueue_jobs AS job
    WHERE job.key IN (
        SELECT key FROM kqueue_jobs
        WHERE state = 'ready' AND type = wanted.value
        ORDER BY priority, key
        LIMIT :heads
    )
"""
#: and those of one that follow.
PLACES_AFTER: Final = """
    SELECT priority, key FROM kqueue_jobs
    WHERE state = 'ready' AND type = :type AND (priority, key) > (:priority, :key)
    ORDER BY priority, key
"""

CANDIDATES_AT: Final = f"""
    SELECT job.key, {_CLAIM_COLUMNS} FROM kqueue_jobs AS job WHERE job.key IN (SELECT value FROM json_each(:keys))
"""

#: The ``+`` keeps SQLite from walking all that is delayed.
LATER: Final = f"""
    SELECT job.id, job.run_at, job.priority {_BY_ID}
    WHERE +job.state = 'delayed' AND job.run_at > :now AND {_OF_TYPES}
"""

_CLAIM: Final = """
    UPDATE kqueue_jobs SET
        state = 'running', fence = max(fence, :fence_floor) + 1, tries = tries + 1,
        alone = :alone, lease_owner = :owner, lease_until = :start + ttr
"""
#: One statement for a window: half the time of one for each row.
CLAIM: Final = f"{_CLAIM} WHERE key IN (SELECT value FROM json_each(:keys))"
#: Where the window is all that has a key in between, as most are: SQLite then walks the table, and makes no set of
#: the keys first.
CLAIM_RANGE: Final = f"{_CLAIM} WHERE key BETWEEN :first AND :last"

#: Adds a run to the history. The parameter is the run as JSON, without its owner.
_WITH_RUN: Final = f"""
    history = json_remove(
        json_insert(coalesce(history, '[]'), '$[#]', json_set(?, '$[0]', lease_owner)),
        iif(json_array_length(history) >= {MOST}, '$[0]', '$[{MOST}]')
    )
"""

#: Those that run are few, and their own index names them.
_RUNNING: Final = (
    f"SELECT {_COLUMNS} FROM kqueue_jobs AS job INDEXED BY kqueue_jobs_lease WHERE job.state = 'running'"
)
CLAIMED_BY: Final = f"{_RUNNING} AND job.lease_owner = ?"
CLAIMED_BY_PROCESS: Final = f"{_RUNNING} AND substr(job.lease_owner, -length(:tail)) = :tail"

#: One that was taken from its holder has lost its place at its type's gate: it is counted again.
RENEW: Final = f"""
    UPDATE kqueue_jobs SET
        state = 'running', lease_until = ?, alone = coalesce(?, alone),
        gate = iif(state = 'ready', {in_gates("type")}, gate)
    WHERE id = ? AND fence = ? AND lease_owner IS NOT NULL AND state IN ('running', 'ready')
"""

SETTLE_DELETE: Final = "DELETE FROM kqueue_jobs WHERE id = ? AND fence = ? AND lease_owner IS NOT NULL"

#: All deletes of one fence, which most jobs of a window share: again half the time of one for each.
SETTLE_DELETES: Final = """
    DELETE FROM kqueue_jobs
    WHERE id IN (SELECT value FROM json_each(?)) AND fence = ? AND lease_owner IS NOT NULL
"""

#: All that one claim has taken: see :mod:`kqueue.stores.sqlite.claimed_ranges`. Two thirds of that.
SETTLE_RANGE: Final = "DELETE FROM kqueue_jobs WHERE key BETWEEN ? AND ? AND lease_owner = ? AND fence = ?"

#: What every run leaves behind that ends and leaves its row.
_IDLE: Final = "alone = 0, lease_owner = NULL, lease_until = NULL, gate = NULL"
#: It was added by now, whatever a clock said that was ahead.
_ASKED: Final = "asked_at = ?, created_at = min(created_at, ?)"
IN_HAND: Final = "id = ? AND fence = ? AND lease_owner IS NOT NULL"

SETTLE_RETRY: Final = f"""
    UPDATE kqueue_jobs SET
        state = ?, run_at = ?, put_at = ?, {_ASKED}, reason = ?, {_WITH_RUN},
        failures = failures + 1, crashes = 0, suspicion = 0, {_IDLE}, {GO_LAST}
    WHERE {IN_HAND}
"""

SETTLE_FINISH: Final = f"""
    UPDATE kqueue_jobs SET
        state = 'done', keep_until = ?, put_at = NULL, {_ASKED}, {_WITH_RUN}, crashes = 0, suspicion = 0, {_IDLE}
    WHERE {IN_HAND}
"""

_UNGET: Final = f"""
    UPDATE kqueue_jobs SET
        state = ?, run_at = ?, put_at = ?, {_ASKED}, priority = coalesce(?, priority), tries = tries - 1,
        reason = coalesce(?, reason), {_IDLE}
"""
#: Of one that was not started, and keeps its place and its deaths.
SETTLE_UNGET: Final = f"{_UNGET} WHERE {IN_HAND}"
SETTLE_UNGET_STARTED: Final = f"{_UNGET}, crashes = 0, suspicion = 0, {GO_LAST} WHERE {IN_HAND}"

SETTLE_DIE: Final = f"""
    UPDATE kqueue_jobs SET
        state = 'dead', put_at = NULL, {_ASKED}, reason = ?, {_WITH_RUN},
        failures = failures + 1, crashes = 0, suspicion = 0, {_IDLE}
    WHERE {IN_HAND}
"""

#: Before the run is settled, which takes its owner from the row. Of one that ends anew the former end goes.
NOTE_END: Final = f"INSERT OR REPLACE INTO kqueue_ends (job_id) SELECT id FROM kqueue_jobs WHERE {IN_HAND}"
NOTE_DEATH: Final = "INSERT OR REPLACE INTO kqueue_ends (job_id) VALUES (?)"
FORGET_END: Final = "DELETE FROM kqueue_ends WHERE job_id = ?"
KEEP_RESULT: Final = f"""
    INSERT OR REPLACE INTO kqueue_results (key, result) SELECT key, ? FROM kqueue_jobs WHERE {IN_HAND}
"""
KEEP_TRACEBACK: Final = f"""
    INSERT INTO kqueue_tracebacks (job_id, lease_owner, traceback)
    SELECT id, lease_owner, ? FROM kqueue_jobs WHERE {IN_HAND}
"""
PRUNE_TRACEBACKS: Final = f"""
    DELETE FROM kqueue_tracebacks WHERE job_id = :id AND key NOT IN (
        SELECT key FROM kqueue_tracebacks WHERE job_id = :id ORDER BY key DESC LIMIT {TRACEBACKS}
    )
"""
FIND_TRACEBACKS: Final = """
    SELECT told.job_id, told.lease_owner, told.traceback FROM json_each(?) AS wanted
    CROSS JOIN kqueue_tracebacks AS told ON told.job_id = wanted.value
"""

# -- the operator's --------------------------------------------------------------------------------------

DELETE: Final = "DELETE FROM kqueue_jobs WHERE id = ?"

FIND_DEAD: Final = f"SELECT job.id, job.type, job.priority {_BY_ID} WHERE job.state = 'dead'"

FIND_DELAYED: Final = f"SELECT job.id, job.type, job.priority {_BY_ID} WHERE job.state = 'delayed'"

HASTEN: Final = "UPDATE kqueue_jobs SET state = 'ready', run_at = ?, put_at = ?, asked_at = ? WHERE id = ?"

#: One that is held stays so unless it is to wait for a time; what waits for a time stands at no gate.
CHANGE: Final = """
    UPDATE kqueue_jobs SET
        priority = coalesce(:priority, priority),
        run_at = coalesce(:run_at, run_at),
        state = iif(
            :run_at IS NULL OR (:run_at <= :now AND state = 'held'), state, iif(:run_at > :now, 'delayed', 'ready')
        ),
        gate = iif(:run_at > :now, NULL, gate),
        put_at = iif(
            (state = 'held' AND coalesce(:run_at, 0) <= :now) OR coalesce(:run_at, run_at) > :put_until,
            NULL, :put_at
        ),
        asked_at = iif(:run_at IS NULL, asked_at, :now)
    WHERE id = :id AND state IN ('delayed', 'ready', 'held')
    RETURNING id, type, priority, run_at, put_at
"""

REVIVE: Final = """
    UPDATE kqueue_jobs SET
        state = 'ready', run_at = ?, put_at = ?, asked_at = ?, reason = ?, lease_owner = NULL,
        tries = 0, failures = 0, crashes = 0, suspicion = 0
    WHERE id = ?
"""

_WHOLE: Final = {"result": RESULT, "progress": PROGRESS}
GET: Final = f"SELECT {', '.join(_WHOLE.get(name) or columns([name]) for name in Row._fields)} {_BY_ID}"

_FIND: Final = f"""
    SELECT {_COLUMNS} FROM kqueue_jobs AS job
    WHERE job.state = '{{}}' AND {{id}} > :after AND (:type IS NULL OR job.type = :type)
    ORDER BY {{id}} LIMIT :most
"""
#: What ended has an index in this order, and what waits is found on the way through all ids. What runs is few:
#: the ``+`` keeps SQLite from that way, so that it sorts them (https://www.sqlite.org/optoverview.html#uplus).
FINDS: Final = {state: _FIND.format(state, id="+job.id" if state == State.RUNNING else "job.id") for state in State}

ENDS: Final = f"""
    SELECT ended.number, {", ".join(_WHOLE.get(name) or columns([name]) for name in Row._fields)}
    FROM kqueue_ends AS ended CROSS JOIN kqueue_jobs AS job ON job.id = ended.job_id
    WHERE ended.number > :after AND (:type IS NULL OR job.type = :type) ORDER BY ended.number LIMIT :most
"""

STATES: Final = f"SELECT job.id, job.state {_BY_ID}"

THERE: Final = f"SELECT job.id {_BY_ID}"

#: The gates of a type stand together, and begin with its own (see :mod:`kqueue.stores.gates`).
OF_TYPES_GATES: Final = gates_of(":type", "gate")
_HELD: Final = "gate IS NOT NULL AND state = 'held'"


def _counts(among: str, held_among: str) -> str:
    """One row: how many there are in each state, each counted in an index of its own."""
    where = {state: f"state = '{state}'{among}" for state in State} | {State.HELD: _HELD + held_among}
    return "SELECT " + ", ".join(f"(SELECT count(*) FROM kqueue_jobs WHERE {term})" for term in where.values())


COUNT_ALL: Final = _counts("", "")
COUNT_TYPE: Final = _counts(" AND type = :type", f" AND {OF_TYPES_GATES}")

#: May read every row.
OVERVIEW: Final = """
    SELECT type, state, count(*), min(run_at) FROM kqueue_jobs GROUP BY type, state ORDER BY type, state
"""

KEY_OF: Final = "SELECT key FROM kqueue_jobs WHERE id = ?"

#: Two ranges: of all better priorities, and of what was added before at the same.
AHEAD: Final = """
    SELECT count(*) FROM (
        SELECT 1 FROM kqueue_jobs INDEXED BY kqueue_jobs_ready
        WHERE state = 'ready' AND type = :type AND priority < :priority
        UNION ALL
        SELECT 1 FROM kqueue_jobs INDEXED BY kqueue_jobs_ready
        WHERE state = 'ready' AND type = :type AND priority = :priority AND key < :key
        LIMIT :most
    )
"""

#: Gives back the ids of those that may have a unique key.
_PURGE: Final = """
    DELETE FROM kqueue_jobs WHERE key IN (SELECT key FROM kqueue_jobs WHERE {} LIMIT :most)
    RETURNING iif(unique_key IS NULL, NULL, id)
"""
#: One for each state but ``running``, since each has an index of its own.
PURGES: Final = (
    *(_PURGE.format(f"state = '{state}' AND type = :type") for state in ("ready", "delayed", "dead", "done")),
    _PURGE.format(f"{_HELD} AND {OF_TYPES_GATES}"),
)

# -- the sweep's -----------------------------------------------------------------------------------------

LAST_SWEEP: Final = "SELECT value FROM kqueue_meta WHERE name = 'last_sweep'"
SWEEP_POSITION: Final = "SELECT value FROM kqueue_meta WHERE name = 'sweep_position'"
KEEP_SWEEP_POSITION: Final = "INSERT OR REPLACE INTO kqueue_meta (name, value) VALUES ('sweep_position', ?)"

#: A last sweep in the future does not count.
TAKE_SWEEP: Final = """
    INSERT INTO kqueue_meta (name, value) VALUES ('last_sweep', :now)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value
    WHERE value > :now OR value + :interval <= :now
"""

PROMOTE: Final = """
    UPDATE kqueue_jobs SET state = 'ready' WHERE key IN (
        SELECT key FROM kqueue_jobs WHERE state = 'delayed' AND run_at <= ? ORDER BY run_at LIMIT ?
    )
"""

FIND_DUE: Final = f"""
    SELECT {_DUE} FROM kqueue_jobs WHERE state = 'delayed' AND run_at <= ? ORDER BY run_at LIMIT ?
"""

_LEASES: Final = "FROM kqueue_jobs INDEXED BY kqueue_jobs_lease WHERE state = 'running'"
#: The TTRs under which jobs run: as in READY_TYPES.
TTRS: Final = f"""
    WITH RECURSIVE found (ttr) AS (
        SELECT min(ttr) {_LEASES}
        UNION ALL
        SELECT (SELECT min(ttr) {_LEASES} AND ttr > found.ttr) FROM found WHERE found.ttr IS NOT NULL
    )
"""
TTRS_ABANDONED: Final = f"""
    {TTRS} SELECT ttr FROM found
    WHERE ttr IS NOT NULL AND (SELECT min(lease_until) {_LEASES} AND ttr = found.ttr) <= ?
"""
FIND_ABANDONED: Final = f"""
    SELECT lease_until, id, type, alone, crashes, lease_owner {_LEASES} AND ttr = ? AND lease_until <= ?
    ORDER BY lease_until
"""

#: ``lease_owner`` and ``alone`` stay, for a late holder that settles or renews.
RECOVER: Final = f"""
    UPDATE kqueue_jobs SET
        state = ?, crashes = crashes + alone, suspicion = suspicion + (1 - alone), reason = ?, {_WITH_RUN},
        put_at = NULL, lease_until = NULL, gate = NULL,
        created_at = min(created_at, ?), run_at = min(run_at, ?), {GO_LAST}
    WHERE id = ?
"""

FIND_UNPUT: Final = f"""
    SELECT {_DUE} FROM kqueue_jobs INDEXED BY kqueue_jobs_unput WHERE put_at IS NULL AND state = 'ready'
    UNION ALL
    SELECT {_DUE} FROM kqueue_jobs INDEXED BY kqueue_jobs_unput
    WHERE put_at IS NULL AND state = 'delayed' AND run_at <= :until
    LIMIT :most
"""

#: From each type that is found, one probe leads to the next: the backlog between them is never read.
READY_TYPES: Final = """
    WITH RECURSIVE found (type, number) AS (
        SELECT min(type), 1 FROM kqueue_jobs WHERE state = 'ready' AND type > :after
        UNION ALL
        SELECT
            (SELECT min(type) FROM kqueue_jobs WHERE state = 'ready' AND type > found.type),
            found.number + 1
        FROM found WHERE found.type IS NOT NULL AND found.number < :most
    )
    SELECT type FROM found WHERE type IS NOT NULL
"""

#: ``:heads`` is a list of [type, the head's priority, the latest ``put_at`` of a lost row of that priority].
#: Of each type and each priority up to the head's, found by one probe from the one before, the rows that were put
#: long ago. So what waits rightly is never read.
#: ``LIMIT -1`` keeps the ORDER BY, which SQLite else leaves out before a join
#: (https://www.sqlite.org/optoverview.html, "omit ORDER BY on subqueries").
#: ``likelihood`` says that levels are few: SQLite, once it has statistics, would else read the whole index first to
#: make a Bloom filter of it (https://www.sqlite.org/releaselog/3_38_0.html, lang_corefunc.html#likelihood).
FIND_LOST: Final = """
    WITH RECURSIVE found (type, level, priority, beside) AS (
        SELECT json_extract(head.value, '$[0]'), (
            SELECT min(priority) FROM kqueue_jobs INDEXED BY kqueue_jobs_put
            WHERE state = 'ready' AND put_at IS NOT NULL AND type = json_extract(head.value, '$[0]')
        ), json_extract(head.value, '$[1]'), json_extract(head.value, '$[2]')
        FROM json_each(:heads) AS head
        UNION ALL
        SELECT found.type, (
            SELECT min(priority) FROM kqueue_jobs INDEXED BY kqueue_jobs_put
            WHERE state = 'ready' AND put_at IS NOT NULL AND type = found.type AND priority > found.level
        ), found.priority, found.beside
        FROM found WHERE found.level < found.priority ORDER BY 1, 2 LIMIT -1
    )
    SELECT job.id, job.type, job.priority, job.run_at, job.put_at
    FROM found CROSS JOIN kqueue_jobs AS job INDEXED BY kqueue_jobs_put
    WHERE likelihood(found.level <= found.priority, 0.000000001) AND job.priority = found.level
        AND job.state = 'ready' AND job.type = found.type
        AND job.put_at <= iif(found.level < found.priority, :until, found.beside) AND job.run_at <= :until
    LIMIT :most
"""

MARK: Final = """
    UPDATE kqueue_jobs SET put_at = ?
    WHERE id = ? AND put_at IS ? AND (state = 'ready' OR state = 'delayed')
"""

# -- dispatching without a broker, and settings ----------------------------------------------------------

HAS_READY: Final = """
    SELECT EXISTS (
        SELECT 1 FROM json_each(?) AS wanted
        CROSS JOIN kqueue_jobs AS job ON job.type = wanted.value WHERE job.state = 'ready'
    )
"""

NEXT_RUN_AT: Final = "SELECT min(run_at) FROM kqueue_jobs WHERE state = 'delayed'"

SETTING: Final = "SELECT value FROM kqueue_meta WHERE name = ?"

#: Of many writers the first wins.
SET_DEFAULT: Final = "INSERT OR IGNORE INTO kqueue_meta (name, value) VALUES (?, ?)"

#: In the place of what was there.
REMEMBER: Final = "INSERT OR REPLACE INTO kqueue_meta (name, value) VALUES (?, ?)"
