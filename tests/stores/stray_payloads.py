"""What a SQLite store keeps apart and has no job, and jobs that have no payload: there are never any."""

import sqlite3

#: (row key, what is wrong with it)
_STRAYS = """
    SELECT apart.key, 'has no job' FROM kqueue_payloads AS apart
    LEFT JOIN kqueue_jobs AS job
        ON coalesce(job.payload_key, job.key) = apart.key AND typeof(job.payload_or_size) = 'integer'
    WHERE job.key IS NULL
    UNION ALL
    SELECT job.key, 'is not as long as its job says' FROM kqueue_jobs AS job
    LEFT JOIN kqueue_payloads AS apart ON apart.key = coalesce(job.payload_key, job.key)
    WHERE typeof(job.payload_or_size) = 'integer' AND length(apart.payload) IS NOT job.payload_or_size
    UNION ALL
    SELECT apart.key, 'is a result of no job that is done' FROM kqueue_results AS apart
    WHERE apart.key NOT IN (SELECT key FROM kqueue_jobs WHERE state = 'done')
    UNION ALL
    SELECT apart.job_id, 'is a progress of no job' FROM kqueue_progress AS apart
    WHERE apart.job_id NOT IN (SELECT id FROM kqueue_jobs)
    UNION ALL
    SELECT apart.job_id, 'is an end of no job that has ended' FROM kqueue_ends AS apart
    WHERE apart.job_id NOT IN (SELECT id FROM kqueue_jobs WHERE state IN ('done', 'dead'))
    UNION ALL
    SELECT apart.job_id, 'is a log of no job' FROM kqueue_log AS apart
    WHERE apart.job_id NOT IN (SELECT id FROM kqueue_jobs)
"""


def stray_payloads(connection: sqlite3.Connection) -> list[str]:
    """What is wrong, for a message."""
    return [f"the payload of row {key} {what}" for key, what in connection.execute(_STRAYS)]
