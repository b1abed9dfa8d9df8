"""KQueue: what users hold. The one place that joins a store and a broker."""

import logging
import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from kqueue import arguments, payload
from kqueue.broker import Broker
from kqueue.brokers import open_broker
from kqueue.brokers.embedded import EmbeddedBroker
from kqueue.clock import SystemClock
from kqueue.crew import Crew
from kqueue.doorbell import Doorbell
from kqueue.ending import RunLimits
from kqueue.errors import AddFailed, BrokerError
from kqueue.execution import reason_text
from kqueue.forks import PerProcess
from kqueue.handlers import Handler, Handlers
from kqueue.ids import IdMint
from kqueue.job import Job, JobInHand, Priority, Row, State
from kqueue.loops import Loops
from kqueue.reports import Finding, RunReport, SweepReport
from kqueue.retry import RetryPolicy
from kqueue.settling import Desk
from kqueue.store import Due, JobStore
from kqueue.stores import open_store
from kqueue.sweep import Sweeper

#: Seconds that a job may run before others may take it, unless its add says otherwise.
DEFAULT_TTR = 60.0
#: The store's setting that keeps a prefix of its own, so that two stores on one beanstalkd never meet.
PREFIX_SETTING = "prefix"
#: Rows deleted at a time by a purge.
PURGE_BATCH = 1000

HandlerFunction = TypeVar("HandlerFunction", bound=Callable[[JobInHand], Any])


class KQueue:
    """A job queue: jobs are kept in a store until their handler deletes them.

    At least once. Once, unless something fails. At most one holder can finish a job. A duplicate (its handler
    starts once more although nobody asked for it) comes only where a worker died or was frozen, a handler outlived
    its TTR, the store could not be written to, its clock jumped, or it forgot what it had acknowledged. Each of
    these costs a job at most one; no fault of beanstalkd costs any. So a handler has to be idempotent: ``job.id``
    is the same in each run, and ``job.fence`` is higher. The README says what weaker settings of a store give up.

    >>> queue = KQueue(store="sqlite:///jobs.db")                                      # nothing to start
    >>> queue = KQueue(store="sqlite:///jobs.db", broker="beanstalk://127.0.0.1:11300")

    One KQueue may be shared by threads, and used after a fork. It opens itself at its first use.

    Every call raises ``ValueError`` or ``TypeError`` for bad arguments before anything is written, and
    :class:`~kqueue.StoreUnavailable`, naming the address, when the store is not there.
    """

    def __init__(
        self,
        store: str | JobStore,
        broker: str | Broker | None = None,
        *,
        retry_delay: float = 30,
        max_tries: int | None = None,
        max_crashes: int = 3,
        sweep_interval: float = 15,
        settle_ms: float = 20,
        max_payload: int = 15 * 2**20,
        prefix: str | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """Make a queue; nothing is opened or connected yet.

        ``store``: ``memory:``, ``sqlite:///relative.db``, ``sqlite:////absolute.db``,
        ``mongodb://host:port/db``, or a :class:`~kqueue.store.JobStore`.
        ``broker``: ``beanstalk://host:port``, ``beanstalk+unix:///path``, a :class:`~kqueue.broker.Broker`, or
        None: then the store itself dispatches.
        ``retry_delay``: seconds until a failed job runs again. ``max_tries``: failed runs until it is dead;
        None: never. ``max_crashes``: deaths of a worker that ran the job alone until it is dead.
        ``sweep_interval``: seconds between two repairs. ``settle_ms``: how long an ended job of a window may
        wait to be written. ``max_payload``: bytes once encoded. ``prefix``: of tube names, at most 10
        characters; the store keeps the first that it was given, by default a random one.
        """
        self._retry = RetryPolicy(
            delay=arguments.number("retry_delay", retry_delay, 0),
            max_tries=None if max_tries is None else arguments.whole("max_tries", max_tries, 1),
        )
        max_crashes = arguments.whole("max_crashes", max_crashes, 1)
        sweep_interval = arguments.number("sweep_interval", sweep_interval, 0.01)
        self._settle_s = arguments.number("settle_ms", settle_ms, 0) / 1000
        self._max_payload = arguments.whole("max_payload", max_payload, 0)
        self._prefix = None if prefix is None else arguments.prefix(prefix)
        self._logger = logging.getLogger("kqueue") if logger is None else arguments.logger(logger)
        self._clock = SystemClock()
        self._store = open_store(store) if isinstance(store, str) else arguments.instance("store", store, "claim")
        self._broker = self._make_broker(broker)
        self._doorbell = Doorbell(self._broker, self._clock, self._logger)
        self._sweeper = Sweeper(
            self._store,
            self._broker,
            self._doorbell,
            interval=sweep_interval,
            max_crashes=max_crashes,
            clock=self._clock,
            logger=self._logger,
        )
        self._mint = IdMint()
        self._crew = PerProcess(Crew)
        self._handlers = Handlers()
        self._is_open = False

    # -- opening and closing -----------------------------------------------------------------------------

    def open(self) -> None:
        """Open the store and learn the tubes' prefix. Idempotent; every call that needs it does it.

        A beanstalkd is connected to at first use only, and need not be there: see :meth:`add_job`.
        """
        if not self._is_open:
            self._store.open()
            self._broker.open(self._agreed_prefix())
            self._is_open = True

    def close(self) -> None:
        """Close this process's connections. Idempotent; a later call opens again."""
        if self._is_open:
            self._is_open = False
            self._broker.close()
            self._store.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def store(self) -> JobStore:
        """Where the jobs are kept."""
        return self._store

    @property
    def broker(self) -> Broker:
        """Where pointers to them go."""
        return self._broker

    @property
    def prefix(self) -> str:
        """What the names of its tubes begin with."""
        self.open()
        return self._agreed_prefix()

    # -- adding ------------------------------------------------------------------------------------------

    def add_job(
        self,
        type: str,
        payload: object = None,
        *,
        priority: Priority | str | int = Priority.NORMAL,
        delay: float = 0,
        ttr: float = DEFAULT_TTR,
    ) -> str:
        """Add one job; when this returns its id, the job is durable: it is never lost, and runs until its handler
        deletes it or it is dead.

        ``payload``: any JSON value, or bytes. ``priority``: a :class:`~kqueue.Priority`, its name, or an
        integer 0..2**32-1, lower first. ``delay``: seconds until it may run. ``ttr``: seconds that it may
        run before others may take it, at least 1.

        A beanstalkd that is down does not matter: the job is in the store, and the sweep puts it. Raises
        :class:`~kqueue.AddFailed` when the store does not take it. A job that this calls ``unknown`` may be there:
        to add it again without a look may make two jobs.
        """
        return self.add_jobs(type, [payload], priority=priority, delay=delay, ttr=ttr)[0]

    def add_jobs(
        self,
        type: str,
        payloads: Iterable[object],
        *,
        priority: Priority | str | int = Priority.NORMAL,
        delay: float = 0,
        ttr: float = DEFAULT_TTR,
    ) -> list[str]:
        """Add one job for each payload, in one write; returns their ids in the same order.

        Arguments as for :meth:`add_job`. Raises :class:`~kqueue.AddFailed`, which says which were taken,
        which not, and which may have been.
        """
        job_type = arguments.job_type(type)
        number = arguments.priority(priority)
        delay = arguments.number("delay", delay, 0)
        ttr = arguments.number("ttr", ttr, 1)
        encoded = [payload.encode(one, self._max_payload) for one in arguments.payloads(payloads)]
        if not encoded:
            return []
        self.open()
        now = self._store.now()
        run_at = now + delay
        put_at = self._doorbell.put_at(run_at, now)
        state = State.DELAYED if delay > 0 else State.READY
        ids = self._mint.make(len(encoded))
        rows = [
            Row(
                id,
                job_type,
                data,
                encoding,
                number,
                state,
                delay,
                run_at,
                ttr,
                created_at=now,
                put_at=put_at,
            )
            for id, (data, encoding) in zip(ids, encoded, strict=True)
        ]
        self._add(rows, now)
        return ids

    def _add(self, rows: list[Row], now: float) -> None:
        try:
            self._store.add(rows)
        except AddFailed as error:
            there = {*error.taken, *error.unknown}
            self._doorbell.ring([_due(row) for row in rows if row.id in there], now)
            raise
        self._doorbell.ring([_due(row) for row in rows], now)

    # -- handlers ----------------------------------------------------------------------------------------

    def add_handler(
        self,
        type: str,
        function: Callable[[JobInHand], Any],
        *,
        delete_on_success: bool = False,
        concurrency: int = 1,
    ) -> None:
        """Let ``function`` run the jobs of ``type``. It is called with a :class:`~kqueue.JobInHand`.

        It may be called again for a job whose worker died or whose lease ran out: make it safe to do twice, by
        ``job.id``. It deletes the job when the work is done and safe; a run longer than the TTR renews it before.

        ``delete_on_success``: a job whose handler returns is deleted, instead of retried as "not deleted".
        ``concurrency``: how many jobs an ``async def`` runs at once in a process under :meth:`work`;
        :meth:`run_jobs` runs them one by one. What a plain function returns is awaited if it can be.
        Raises ``ValueError`` if the type has a handler.
        """
        job_type = arguments.job_type(type)
        is_async = arguments.handler_function(f"handler of {job_type}", function)
        handler = Handler(
            function,
            arguments.flag("delete_on_success", delete_on_success),
            is_async,
            arguments.concurrency(concurrency, is_async),
        )
        self._handlers.add(job_type, handler)
        self._crew.get().wake()

    def handler(
        self, type: str, *, delete_on_success: bool = False, concurrency: int = 1
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """:meth:`add_handler` as a decorator."""
        arguments.job_type(type)

        def register(function: HandlerFunction) -> HandlerFunction:
            self.add_handler(type, function, delete_on_success=delete_on_success, concurrency=concurrency)
            return function

        return register

    def remove_handler(self, type: str) -> bool:
        """Stop running jobs of ``type`` here; they stay for others. False if it had no handler."""
        job_type = arguments.job_type(type)
        had = self._handlers.remove(job_type)
        self._crew.get().wake()
        return had

    def types(self) -> list[str]:
        """The types that have a handler here, sorted."""
        return sorted(self._handlers.all())

    # -- running -----------------------------------------------------------------------------------------

    def run_jobs(
        self, count_limit: int | None = None, time_limit_ms: float | None = None, wait: bool = False
    ) -> RunReport:
        """Run ready jobs that have a handler here, in the order (priority, added).

        A job's lease is durable before its handler starts, so no other worker has it meanwhile. If this process
        dies, the jobs that had started and were not settled start once more, with a higher fence.

        Returns after ``count_limit`` jobs; once ``time_limit_ms`` have passed (the running job ends first);
        when nothing is ready, unless ``wait``; or after :meth:`stop`. Without any limit it drains what is ready.

        A handler that raises, or returns without having settled its job, has it retried. Only
        ``KeyboardInterrupt`` and ``SystemExit`` end the loop; they are raised again once the unstarted jobs
        are given back. Raises ``StoreError`` or ``BrokerError`` when the one or the other is down; with
        ``wait`` it tries again, with a back-off, until a limit.

        An ``async def`` handler runs to its end before the next job starts, in an event loop that this call makes
        and closes; :meth:`work` runs several at once. Inside a running event loop such handlers are refused with a
        :class:`~kqueue.KQueueError`: there say ``await asyncio.to_thread(queue.run_jobs)``.
        """
        return self._loops().run(
            RunLimits(
                None if count_limit is None else arguments.whole("count_limit", count_limit, 0),
                None if time_limit_ms is None else arguments.number("time_limit_ms", time_limit_ms, 0) / 1000,
                arguments.flag("wait", wait),
            )
        )

    def work(self, threads: int = 1, time_limit_ms: float | None = None, wait: bool = True) -> RunReport:
        """Run jobs of all types that have a handler now: those of plain functions in ``threads`` loops, and beside
        them those of each ``async def``, up to its ``concurrency`` at once, all in one event loop.

        Each loop is as :meth:`run_jobs` is, with a thread and a connection of its own. Returns, with what all did
        together, once all have ended: at the time limit, after :meth:`stop`, or, without ``wait``, when nothing is
        ready for any. Coroutines that run then end by themselves. An error that ends one loop ends all, and is
        raised.
        """
        return self._loops().work(
            arguments.whole("threads", threads, 1),
            RunLimits(
                None,
                None if time_limit_ms is None else arguments.number("time_limit_ms", time_limit_ms, 0) / 1000,
                arguments.flag("wait", wait),
            ),
        )

    def stop(self) -> None:
        """End ``run_jobs`` after its current job: in all threads, from any thread or a signal handler.

        Where none runs, the next ``run_jobs`` returns at once, so that a signal is never missed.
        """
        self._crew.get().stop()

    def flush(self) -> None:
        """Settle now what has ended and waits to be written (at most ``settle_ms``), in all threads."""
        for batch in self._crew.get().batches():
            batch.settle()

    # -- a job in hand -----------------------------------------------------------------------------------

    def delete_job(self, job: Job | str) -> bool:
        """The job is finished, or unwanted. True if there was one. Once durable, no worker can claim it again.

        With the job in hand, or the id of a job that runs in this queue, it is that job's own delete: settled
        with its window, so at most ``settle_ms`` later, and a crash before has it start once more. For any other it
        is the operator's: it needs no lease, and it is durable at once.
        """
        if isinstance(job, JobInHand):
            job.delete()
            return True
        job_id = arguments.job_id(job.id if isinstance(job, Job) else job)
        self.open()
        batches = self._crew.get().batches()
        if any(batch.delete_by_id(job_id) for batch in batches):
            return True
        deleted = self._store.delete([job_id]) > 0
        for batch in batches:
            batch.drop(job_id)
        return deleted

    def renew_job(self, job: JobInHand) -> None:
        """Hold the job in hand for another TTR from now. Raises :class:`~kqueue.LeaseLost`."""
        arguments.in_hand(job).renew()

    def unget_job(self, job: JobInHand, priority: Priority | str | int | None = None, delay: float = 0) -> None:
        """Give the job in hand back as if it had not run: no try is counted."""
        arguments.in_hand(job).unget(priority, delay)

    def retry_job(self, job: Job | str, reason: str, delay: float | None = None) -> bool:
        """Run a job again.

        The job in hand: in ``delay`` seconds (by default the retry delay), or dead if its tries are used up.
        Any other: brought back at once if it is dead, its tries and crashes cleared; False if it is not.
        """
        if isinstance(job, JobInHand):
            job.retry(reason, delay)
            return True
        job_id = arguments.job_id(job.id if isinstance(job, Job) else job)
        reason = reason_text(arguments.text("reason", reason))
        if delay is not None:
            raise ValueError("delay: only for a job in hand; a dead job is brought back at once")
        self.open()
        now = self._store.now()
        revived = self._store.revive([job_id], reason, now, self._doorbell.put_at(now, now))
        self._doorbell.ring(revived, now)
        return bool(revived)

    # -- looking and cleaning ----------------------------------------------------------------------------

    def get_job(self, job_id: str) -> Job | None:
        """The job as it stands now, with its ``state`` and last ``reason``; None if it is not there."""
        job_id = arguments.job_id(job_id)
        self.open()
        rows = self._store.get([job_id])
        return Job(rows[0]) if rows else None

    def jobs(
        self, type: str | None = None, state: str = State.DEAD, limit: int = 100, after: str | None = None
    ) -> list[Job]:
        """Up to ``limit`` jobs in one state, of one type or of all, in the order of their ids.

        To page, give the last id as ``after``. ``state`` is a :class:`~kqueue.State` or its name.
        """
        job_type = None if type is None else arguments.job_type(type)
        job_state = arguments.state(state)
        limit = arguments.whole("limit", limit, 1)
        after = None if after is None else arguments.job_id(after)
        self.open()
        return [Job(row) for row in self._store.find(job_type, job_state, after, limit)]

    def counts(self, type: str | None = None) -> dict[str, int]:
        """Jobs by state (``delayed ready running dead done``, always all), of one type or of all."""
        job_type = None if type is None else arguments.job_type(type)
        self.open()
        return self._store.counts(job_type)

    def purge_jobs(self, type: str) -> int:
        """Delete all jobs of ``type`` that do not run, and drain its tube; returns how many jobs."""
        job_type = arguments.job_type(type)
        self.open()
        total = 0
        while deleted := self._store.purge(job_type, PURGE_BATCH):
            total += deleted
        try:
            self._broker.drain(job_type)
        except BrokerError as error:
            self._logger.warning("purged, but the tube is not drained; runs will delete its entries: %s", error)
        return total

    def sweep(self) -> SweepReport:
        """Repair now what lost its pointer or its worker. ``run_jobs`` does it by itself when it is due.

        Raises :class:`~kqueue.BrokerUnavailable` after the store's own part is done, if the broker is down.
        """
        self.open()
        return self._sweeper.sweep()

    def findings(self, limit: int = 100) -> Iterator[Finding]:
        """What :meth:`sweep` would do now, and why; none of it is done, in the store or in a tube.

        Up to ``limit`` findings of a kind; then one without a ``job_id`` says that there are more. They come one by
        one: first what the store alone tells, then what its tubes show. That raises
        :class:`~kqueue.BrokerUnavailable` if the broker is down. Behind an entry that is not ours nothing can be
        seen without burying it, so the dry run ends there for that tube.
        """
        limit = arguments.whole("limit", limit, 1)
        self.open()
        return self._sweeper.findings(limit)

    def _loops(self) -> Loops:
        return Loops(
            open=self.open,
            desk=partial(Desk, self._store, self._doorbell, self._retry, self._settle_s, self._clock, self._logger),
            broker=self._broker,
            sweeper=self._sweeper,
            crew=self._crew.get(),
            handlers=self._handlers.all,
            mint=self._mint,
        )

    def _agreed_prefix(self) -> str:
        """The one that all who use this store have: the first that was ever given, or else a random one."""
        wanted = f"kq{secrets.token_hex(3)}." if self._prefix is None else self._prefix
        kept = self._store.setting(PREFIX_SETTING, wanted)
        if self._prefix not in {None, kept}:
            raise ValueError(
                f"prefix: the tubes of the store at {self._store.address} begin with {kept!r}, not {wanted!r};"
                " give that one, or none"
            )
        return kept

    def _make_broker(self, broker: str | Broker | None) -> Broker:
        if broker is None:
            return EmbeddedBroker(self._store, clock=self._clock)
        if isinstance(broker, str):
            return open_broker(broker, logger=self._logger)
        return arguments.instance("broker", broker, "subscribe")


def _due(row: Row) -> Due:
    return Due(row.id, row.type, row.priority, row.run_at, row.put_at)
