"""Procrastinate: https://procrastinate.readthedocs.io/. Bulk: ``batch_defer``. One worker process, 10
coroutines at once, or as many as are told; jobs are deleted when they are done.
"""

from procrastinate import App, PsycopgConnector

from bench.peers import work as bench

APP = App(connector=PsycopgConnector(conninfo=bench.url()))
CLOCK = bench.ProcessClock()


@APP.task(queue="bench", name="task")
async def task(payload: str) -> None:
    await bench.run_async(CLOCK)


def add_in_bulk(jobs: int) -> None:
    with APP.open():
        for length in bench.lists(jobs):
            task.batch_defer(*[{"payload": bench.PAYLOAD}] * length)


def add_one_by_one(jobs: int) -> None:
    with APP.open():
        for _ in range(jobs):
            task.defer(payload=bench.PAYLOAD)


def work() -> None:
    APP.run_worker(concurrency=bench.hands(10), delete_jobs="always")


def left() -> int:
    """Makes the tables if there are none: it is asked before anything is added."""
    with APP.open():
        connector = APP.connector.get_sync_connector()
        if connector.execute_query_one("SELECT to_regclass('procrastinate_jobs') IS NULL AS missing")["missing"]:
            APP.schema_manager.apply_schema()
        return int(connector.execute_query_one("SELECT count(*) AS jobs FROM procrastinate_jobs")["jobs"])
