"""KQueue: what users hold. The one place that joins a store and a broker."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from kqueue.admin.dead_jobs import ALL_DEAD, DeadJobs, Filter
from kqueue.admin.hanging import hanging_in
from kqueue.brokers import open_broker
from kqueue.brokers.embedded import EmbeddedBroker
from kqueue.contracts.admission import Limit
from kqueue.contracts.broker import Broker
from kqueue.contracts.operator import ALL_TYPES
from kqueue.contracts.rules import GRACE_S
from kqueue.contracts.store import JobStore
from kqueue.dispatch.adding import Adding
from kqueue.dispatch.doorbell import Doorbell
from kqueue.dispatch.limiter import Limiter
from kqueue.dispatch.naming import Naming
from kqueue.loops.registry import Registry
from kqueue.loops.stopping import RunLimits
from kqueue.model import checks, schedule
from kqueue.model.errors import BrokerError
from kqueue.model.events import Event
from kqueue.model.handlers import Handler, Handlers
from kqueue.model.job import Job, JobInHand, Priority, State
from kqueue.model.options import GivenOptions, Options, TypeOptions
from kqueue.model.reasons import reason_text
from kqueue.model.reports import Finding, RunReport, Stats, SweepReport
from kqueue.model.retry import RetryPolicy
from kqueue.renewal import open_renewer
from kqueue.stores import open_store, shared_url
from kqueue.system import streams
from kqueue.system.clock import SystemClock
from kqueue.system.forks import PerProcess
from kqueue.system.mint import IdMint
from kqueue.telemetry.outages import Outages
from kqueue.telemetry.subscribers import Subscribers
from kqueue.telemetry.telemetry import Telemetry
from kqueue.upkeep.cron import Cron, CronJob
from kqueue.upkeep.heartbeat import Heartbeat, Worker, worker_of
from kqueue.upkeep.maintenance import Maintenance
from kqueue.upkeep.pauses import Pauses
from kqueue.upkeep.sweep import PAGE_TYPES, Sweeper

if TYPE_CHECKING:
    from kqueue.admin.doctor import Symptom
    from kqueue.admin.inspection import Inspection
    from kqueue.admin.why import Answer
    from kqueue.config.configuration import Configuration
    from kqueue.execution.context import LoopContext
    from kqueue.loops.start import Loops

#: Seconds. A store forgets after a day what its limits have counted.
LONGEST_PERIOD_S = 86_400.0
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
        create: bool = True,
        logger: logging.Logger | None = None,
        log_payloads: bool = False,
    ) -> None:
        """Make a queue; nothing is opened or connected yet.

        ``store``: ``memory:``, ``sqlite:///relative.db``, ``sqlite:////absolute.db``,
        ``mongodb://host:port/db``, or a :class:`~kqueue.contracts.store.JobStore`.
        ``broker``: ``beanstalk://host:port``, ``beanstalk+unix:///path``, a
        :class:`~kqueue.contracts.broker.Broker`, or None: then the store itself dispatches.
        ``retry_delay``: seconds until a failed job runs again. ``max_tries``: failed runs until it is dead;
        None: never. Both hold for types without a retry policy of their own: see :meth:`options`.
        ``max_crashes``: deaths of a worker that ran the job alone until it is dead.
        ``sweep_interval``: seconds between two repairs. ``settle_ms``: how long an ended job of a window may
        wait to be written. ``max_payload``: bytes once encoded. ``prefix``: of tube names, at most 10
        characters; the store keeps the first that it was given, by default none. The store's random id follows
        it, so that two stores never share a tube.
        ``create``: whether to make a SQLite file that is missing, which the logger is told of at INFO; else
        :class:`~kqueue.StoreUnavailable` is raised. A store that is given as an object has its own say.
        ``logger``: by default the one named ``kqueue``. ``log_payloads``: records about a job show its payload.
        """
        retry = RetryPolicy(max_tries=max_tries, delay=checks.number("retry_delay", retry_delay, 0))
        self._options = Options(TypeOptions(retry=retry))
        max_crashes = self._max_crashes = checks.whole("max_crashes", max_crashes, 1)
        sweep_interval = checks.number("sweep_interval", sweep_interval, 0.01)
        self._settle_s = checks.number("settle_ms", settle_ms, 0) / 1000
        max_payload = checks.whole("max_payload", max_payload, 0)
        prefix = None if prefix is None else checks.prefix(prefix)
        self._logger = logging.getLogger("kqueue") if logger is None else checks.logger(logger)
        self._clock = SystemClock()
        create = checks.flag("create", create)
        if isinstance(store, str):
            self._store = open_store(store, create=create, logger=self._logger)
        else:
            self._store = checks.instance("store", store, "claim")
        url = shared_url(store) if isinstance(store, str) else None
        self._renewers = PerProcess(lambda: open_renewer(self._store, url, self._logger))
        self._broker = self._make_broker(broker)
        self._naming = Naming(self._store, self._broker, prefix, self._clock.monotonic)
        self._observers = Subscribers(self._logger)
        self._telemetry = Telemetry(
            self._observers,
            self._clock,
            self._store.now,
            self._logger,
            log_payloads=checks.flag("log_payloads", log_payloads),
        )
        self._outages = Outages(self._telemetry, self._clock)
        self._doorbell = Doorbell(self._broker, self._clock, self._logger, self._outages)
        self._sweeper = Sweeper(
            self._store,
            self._broker,
            self._doorbell,
            interval=sweep_interval,
            max_crashes=max_crashes,
            clock=self._clock,
            logger=self._logger,
            telemetry=self._telemetry,
            outages=self._outages,
        )
        self._mint = IdMint()
        self._adding = Adding(
            open=self.open,
            follow=self._naming.follow,
            store=self._store,
            doorbell=self._doorbell,
            options=self._options,
            max_payload=max_payload,
            mint=self._mint,
            telemetry=self._telemetry,
        )
        self._limiter = Limiter(self._store, self._doorbell, self._clock.monotonic, self._logger)
        self._dead_jobs = DeadJobs(self._store, self._doorbell)
        self._sweep_interval = sweep_interval
        self._cron = Cron(self._store, self._adding, self._clock.monotonic, self._logger)
        self._registry = PerProcess(Registry)
        self._handlers = Handlers()
        self._maintenance = PerProcess(self._make_maintenance)
        self._is_open = False

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | Configuration | None = None, **overrides: Any) -> Self:
        """Make a queue of what is configured: defaults, then a TOML file, then the environment, then ``overrides``.

        ``path``: the file, or what :func:`kqueue.config.configuration.load` has read. None: the file that
        ``KQUEUE_CONFIG`` names, or else ``kqueue.toml`` in the current folder, if it is there. ``overrides``:
        arguments of ``KQueue``, by their names.

        Raises ``ValueError`` that names file and key, or variable, for what is refused.
        """
        from kqueue.config.configuration import Configuration, load  # noqa: PLC0415 (see test_layout.LAZY)
        from kqueue.config.keys import nearest  # noqa: PLC0415

        read = path if isinstance(path, Configuration) else load(path)
        known = inspect.signature(cls).parameters
        for name in overrides:
            if name not in known:
                raise TypeError(f"{name}: KQueue has no such argument; the nearest one is {nearest(name, known)}")
        given = {**read.queue(), **overrides}
        if given.get("store") is None:
            raise ValueError("store: none is configured; give store=, or set it in kqueue.toml or KQUEUE_STORE")
        queue = cls(**given)
        for type, options in read.options().items():
            queue.options(type, **options)
        for type, bounds in read.limits().items():
            queue.limit(type, **bounds)
        return queue

    # -- opening and closing -----------------------------------------------------------------------------

    def open(self) -> None:
        """Open the store and learn the names of its tubes. Idempotent; every call that needs it does it.

        A beanstalkd is connected to at first use only, and need not be there: see :meth:`add_job`.
        """
        if not self._is_open:
            streams.secure()
            self._store.open()
            self._naming.look()
            self._is_open = True

    def close(self) -> None:
        """Close this process's connections. Idempotent; a later call opens again."""
        renewer = self._renewers.existing()
        if renewer is not None:
            renewer.close()
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
        """What the names of its tubes begin with: the ``prefix`` that was given, and the store's id."""
        return self._open_and_follow()

    @property
    def registry(self) -> Registry:
        """The loops of this process and what they hold: for a program that looks after them."""
        return self._registry.get()

    @property
    def owner_tail(self) -> str:
        """How the ``lease_owner`` of every row ends that this process has claimed by this queue."""
        return self._mint.tail()

    # -- options and adding ------------------------------------------------------------------------------

    def options(self, type: str, **given: Unpack[GivenOptions]) -> TypeOptions:
        """Set what holds for all jobs of ``type`` in this queue; returns all of its options. Each is set once.

        ``priority="normal"``, ``delay=0``, ``ttr=60``: of an add that gives none. ``retry``: a
        :class:`~kqueue.RetryPolicy`, instead of the queue's ``retry_delay`` and ``max_tries``; or by themselves
        ``retry_delay`` and ``max_tries``. ``keep_done=0``: seconds that a finished job is kept. ``unique_for=0``:
        seconds that a unique key is taken at least. A call's own arguments win.

        >>> queue.options("resize", ttr=30, priority="high", retry=RetryPolicy(max_tries=5, delay=[1, 10, 60]))

        Raises ``ValueError`` for an unknown option, naming the nearest one, and for one that was set before; then
        nothing is set.
        """
        return self._options.set(checks.job_type(type), given)

    def add_job(
        self,
        type: str,
        payload: object = None,
        *,
        priority: Priority | str | int | None = None,
        delay: float | None = None,
        ttr: float | None = None,
        unique: str | None = None,
        unique_for: float | None = None,
        limit_key: str | None = None,
    ) -> str:
        """Add one job; when this returns its id, the job is durable: it is never lost, and runs until its handler
        deletes it or it is dead.

        ``payload``: any JSON value, or bytes. What is not given is as :meth:`options` says for the type, or else:
        ``priority``: "normal"; a :class:`~kqueue.Priority`, its name, or an integer 0..2**32-1, lower first.
        ``delay``: 0; seconds until it may run. ``ttr``: 60; seconds that it may run before others may take it, at
        least 1.

        ``unique``: a key of 1 to 200 characters. While a job of this type with this key waits or runs, and for its
        ``unique_for`` seconds (0) from its add whatever becomes of it, nothing is added, and its id is returned.
        ``limit_key``: jobs of one type and key count together where the type has limits.

        A beanstalkd that is down does not matter: the job is in the store, and the sweep puts it. Raises
        :class:`~kqueue.AddFailed` when the store does not take it. A job that this calls ``unknown`` may be there:
        to add it again without a look may make two jobs. A ``KeyboardInterrupt`` and its like may come once the job
        is there: what leaves has its id in ``job_ids``, and in a note.
        """
        order = self._adding.check(
            type,
            [payload],
            priority=priority,
            delay=delay,
            ttr=ttr,
            limit_key=limit_key,
            unique=unique,
            unique_for=unique_for,
        )
        return self._adding.add(order)[0]

    def add_jobs(
        self,
        type: str,
        payloads: Iterable[object],
        *,
        priority: Priority | str | int | None = None,
        delay: float | None = None,
        ttr: float | None = None,
        limit_key: str | None = None,
    ) -> list[str]:
        """Add one job for each payload, in one write; returns their ids in the same order.

        Arguments as for :meth:`add_job`; a unique key is for a single job. Raises :class:`~kqueue.AddFailed`, which
        says which were taken, which not, and which may have been. What interrupts it has their ids in ``job_ids``.
        """
        order = self._adding.check(type, payloads, priority=priority, delay=delay, ttr=ttr, limit_key=limit_key)
        return self._adding.add(order)

    # -- handlers ----------------------------------------------------------------------------------------

    def add_handler(
        self,
        type: str,
        function: Callable[[JobInHand], Any],
        *,
        delete_on_success: bool = False,
        retry: RetryPolicy | None = None,
        auto_renew: bool = False,
        max_runtime: float | None = None,
        concurrency: int = 1,
    ) -> None:
        """Let ``function`` run the jobs of ``type``. It is called with a :class:`~kqueue.JobInHand`.

        It may be called again for a job whose worker died or whose lease ran out: make it safe to do twice, by
        ``job.id``. It deletes the job when the work is done and safe; a run longer than the TTR renews it before.

        ``delete_on_success``: a job whose handler returns is deleted, instead of retried as "not deleted".
        ``retry``: the type's retry policy, as by :meth:`options`. A handler may return a :class:`~kqueue.Verdict`,
        and return or raise a :class:`~kqueue.Snooze`.
        ``auto_renew``: another process renews the lease at each third of the TTR while the handler runs, whatever
        that does; for a store that was given as an object, or is ``memory:``, a thread of this one.
        ``max_runtime``: with ``auto_renew``, seconds that the handler may run; then its job is retried with that
        reason, and what the handler still does to it changes nothing.
        ``concurrency``: how many jobs an ``async def`` runs at once in a process under :meth:`work`;
        :meth:`run_jobs` runs them one by one. What a plain function returns is awaited if it can be.

        Raises ``ValueError`` if the type has a handler, or a retry policy and another is given.
        """
        job_type = checks.job_type(type)
        is_async = checks.handler_function(f"handler of {job_type}", function)
        handler = Handler(
            function,
            delete_on_success=checks.flag("delete_on_success", delete_on_success),
            auto_renew=checks.flag("auto_renew", auto_renew),
            max_runtime=None if max_runtime is None else checks.seconds("max_runtime", max_runtime),
            is_async=is_async,
            concurrency=checks.concurrency(concurrency, is_async),
        )
        if handler.max_runtime is not None and not handler.auto_renew:
            raise ValueError("max_runtime: only with auto_renew=True; without it the TTR of a job bounds its runs")
        self._handlers.refuse_second(job_type)
        if retry is not None:
            self._options.set(job_type, {"retry": retry})
        self._handlers.add(job_type, handler)
        self._registry.get().wake()

    def handler(
        self,
        type: str,
        *,
        delete_on_success: bool = False,
        retry: RetryPolicy | None = None,
        auto_renew: bool = False,
        max_runtime: float | None = None,
        concurrency: int = 1,
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """:meth:`add_handler` as a decorator."""
        checks.job_type(type)

        def register(function: HandlerFunction) -> HandlerFunction:
            self.add_handler(
                type,
                function,
                delete_on_success=delete_on_success,
                retry=retry,
                auto_renew=auto_renew,
                max_runtime=max_runtime,
                concurrency=concurrency,
            )
            return function

        return register

    def remove_handler(self, type: str) -> bool:
        """Stop running jobs of ``type`` here; they stay for others. False if it had no handler."""
        job_type = checks.job_type(type)
        had = self._handlers.remove(job_type)
        self._registry.get().wake()
        return had

    def types(self) -> list[str]:
        """The types that have a handler here, sorted."""
        return sorted(self._handlers.all())

    def limit(
        self,
        type: str,
        *,
        running: int | None = None,
        running_per_key: int | None = None,
        starts: int | None = None,
        period: float | None = None,
    ) -> None:
        """Let at most so many jobs of ``type`` run, over all workers of the store that say the same.

        ``running``: at once. ``running_per_key``: at once, of those that were added with the same ``limit_key``.
        ``starts``: in any ``period`` seconds (1 by default, a day at most), counted when a worker claims a job. One
        that has no place waits in the store as ``held``, and nobody looks at it until there is one; a worker that
        dies gives its places back with its leases. Raises ``ValueError`` if the type has limits already.
        """
        bounds = {"running": running, "running_per_key": running_per_key, "starts": starts}
        if all(bound is None for bound in bounds.values()):
            raise ValueError(f"limit: give at least one of {', '.join(bounds)}")
        checked = {name: None if one is None else checks.whole(name, one, 1) for name, one in bounds.items()}
        if starts is None and period is not None:
            raise ValueError("period: only with starts")
        seconds = checks.number("period", 1.0 if period is None else period, 0.001)
        if seconds > LONGEST_PERIOD_S:
            raise ValueError(f"period: at most {LONGEST_PERIOD_S:g} seconds (a day), got {period!r}")
        self._limiter.limit(Limit(checks.job_type(type), **checked, period=seconds))

    # -- cron --------------------------------------------------------------------------------------------

    def add_cron(
        self,
        expression: str,
        type: str,
        payload: object = None,
        *,
        tz: str = "UTC",
        missed: str = schedule.Missed.LAST,
        name: str | None = None,
        priority: Priority | str | int | None = None,
        ttr: float | None = None,
    ) -> None:
        """Add a job at each tick of a cron expression, once over all workers: whoever runs jobs of this queue adds
        it when it is due. The tick is the job's ``run_at``.

        ``expression``: ``minute hour day month weekday``, or with seconds before them. ``tz``: a time zone's name.
        ``missed``: what becomes of ticks that nobody noticed within a minute: ``none`` leaves them out, ``last``
        adds the last of them unless a later one is due, ``all`` adds each. ``name``: under which the store keeps
        the last tick; the type by default. Raises ``ValueError`` for what cannot be read, and for a name that is
        taken.
        """
        plan = schedule.make(expression, tz, missed)
        order = self._adding.check(type, [payload], priority=priority, delay=0, ttr=ttr)
        self._cron.add(CronJob(order.type if name is None else checks.key("name", name), plan, order))

    def cron(
        self,
        expression: str,
        *,
        type: str | None = None,
        delete_on_success: bool = False,
        retry: RetryPolicy | None = None,
        auto_renew: bool = False,
        max_runtime: float | None = None,
        concurrency: int = 1,
        **options: Any,
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """:meth:`add_cron` and :meth:`add_handler` as one decorator. The type is the function's name by default;
        ``options`` are the others of :meth:`add_cron`.
        """

        def register(function: HandlerFunction) -> HandlerFunction:
            job_type = function.__name__ if type is None else type
            self._handlers.refuse_second(checks.job_type(job_type))
            self.add_cron(expression, job_type, **options)
            self.add_handler(
                job_type,
                function,
                delete_on_success=delete_on_success,
                retry=retry,
                auto_renew=auto_renew,
                max_runtime=max_runtime,
                concurrency=concurrency,
            )
            return function

        return register

    def has_coroutines(self) -> bool:
        """Whether any handler here is an ``async def``: then :meth:`work` runs several of its jobs at once."""
        return any(handler.is_async for handler in self._handlers.all().values())

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
                None if count_limit is None else checks.whole("count_limit", count_limit, 0),
                None if time_limit_ms is None else checks.number("time_limit_ms", time_limit_ms, 0) / 1000,
                checks.flag("wait", wait),
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
            checks.whole("threads", threads, 1),
            RunLimits(
                None,
                None if time_limit_ms is None else checks.number("time_limit_ms", time_limit_ms, 0) / 1000,
                checks.flag("wait", wait),
            ),
        )

    def renew_through(self, descriptor: int) -> None:
        """For what starts worker processes: leases are renewed by the renewer at the other end of this socket,
        which this process has inherited, and no process is started for it. See :mod:`kqueue.renewal`.
        """
        self._renewers.get().offer(descriptor)

    def stop(self) -> None:
        """End ``run_jobs`` after its current job: in all threads, from any thread or a signal handler.

        Where none runs, the next ``run_jobs`` returns at once, so that a signal is never missed.
        """
        self._registry.get().stop()

    def flush(self) -> None:
        """Settle now what has ended and waits to be written (at most ``settle_ms``), in all threads."""
        for batch in self._registry.get().batches():
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
        job_id = checks.job_id(job.id if isinstance(job, Job) else job)
        self.open()
        batches = self._registry.get().batches()
        if any(batch.delete_by_id(job_id) for batch in batches):
            return True
        deleted = self._store.delete([job_id]) > 0
        for batch in batches:
            batch.drop(job_id)
        return deleted

    def renew_job(self, job: JobInHand) -> None:
        """Hold the job in hand for another TTR from now. Raises :class:`~kqueue.LeaseLost`."""
        checks.in_hand(job).renew()

    def unget_job(self, job: JobInHand, priority: Priority | str | int | None = None, delay: float = 0) -> None:
        """Give the job in hand back as if it had not run: no try is counted."""
        checks.in_hand(job).unget(priority, delay)

    def retry_job(self, job: Job | str, reason: str, delay: float | None = None) -> bool:
        """Run a job again.

        The job in hand: in ``delay`` seconds (by default as the retry policy says), or dead if its tries are used
        up. Any other: brought back at once if it is dead, its tries and crashes cleared; False if it is not.
        """
        if isinstance(job, JobInHand):
            job.retry(reason, delay)
            return True
        job_id = checks.job_id(job.id if isinstance(job, Job) else job)
        reason = reason_text(checks.text("reason", reason))
        if delay is not None:
            raise ValueError("delay: only for a job in hand; a dead job is brought back at once")
        self.open()
        now = self._store.now()
        revived = self._store.revive([job_id], reason, now, self._doorbell.put_at(now, now))
        self._doorbell.ring(revived, now)
        return bool(revived)

    # -- listening ---------------------------------------------------------------------------------------

    def subscribe(self, function: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``function`` with every :class:`~kqueue.Event` of this queue in this process; returns what ends it.

        It is called in the thread in which it happened, once the fact is durable; of the jobs of a loop, from the
        next window on. It has to be quick: the loop waits for it, and leases run meanwhile. It may use the queue.

        What it raises is logged, once for each kind of error, and harms no job. But a ``KeyboardInterrupt`` or
        ``SystemExit`` in the main thread goes on to whoever called this queue there, as if it had come in the
        queue's own code: a loop gives back what has not ended, and ends. Raises ``ValueError`` if ``function`` is
        subscribed already.
        """
        checks.plain_function("function", function)
        return self._observers.subscribe(function)

    def unsubscribe(self, function: Callable[[Event], object]) -> bool:
        """Call ``function`` no more. False if it was not subscribed."""
        return self._observers.unsubscribe(function)

    # -- looking and cleaning ----------------------------------------------------------------------------

    def get_job(self, job_id: str) -> Job | None:
        """The job as it stands now, with its ``state`` and last ``reason``; None if it is not there."""
        job_id = checks.job_id(job_id)
        self.open()
        rows = self._store.get([job_id])
        return Job(rows[0]) if rows else None

    def jobs(
        self, type: str | None = None, state: str = State.DEAD, limit: int = 100, after: str | None = None
    ) -> list[Job]:
        """Up to ``limit`` jobs in one state, of one type or of all, in the order of their ids.

        To page, give the last id as ``after``. ``state`` is a :class:`~kqueue.State` or its name.
        """
        job_type = None if type is None else checks.job_type(type)
        job_state = checks.state(state)
        limit = checks.whole("limit", limit, 1)
        after = None if after is None else checks.job_id(after)
        self.open()
        return [Job(row) for row in self._store.find(job_type, job_state, after, limit)]

    def counts(self, type: str | None = None) -> dict[str, int]:
        """Jobs by state (``delayed ready held running dead done``, always all), of one type or of all."""
        job_type = None if type is None else checks.job_type(type)
        self.open()
        return self._store.counts(job_type)

    def stats(self) -> Stats:
        """How each type does, in one snapshot: what this process counted, and what waits in the store.

        Counts are those of this process since its queue was made; after a fork the child's begin at 0. It may read
        every row of the store, so ask it each quarter of a minute rather than each second.
        """
        self.open()
        return self._telemetry.counters.stats(self._store.overview(), self._store.now())

    def retry_dead(self, reason: str, wanted: Filter = ALL_DEAD, *, limit: int | None = None) -> int:
        """Bring dead jobs back, those that ``wanted`` matches, ``limit`` in all, their tries cleared.

        Returns how many. In lots of 100: what was done before an error stays done.
        """
        reason = reason_text(checks.text("reason", reason))
        limit = None if limit is None else checks.whole("limit", limit, 1)
        self.open()
        return self._dead_jobs.retry(wanted, reason, limit)

    def dead_jobs(self, wanted: Filter = ALL_DEAD, *, limit: int | None = None) -> Iterator[list[Job]]:
        """Dead jobs, those that ``wanted`` matches, ``limit`` in all: in lots of at most 100, in order of ids."""
        self.open()
        return ([Job(row) for row in lot] for lot in self._dead_jobs.find(wanted, limit))

    def delete_dead(self, wanted: Filter = ALL_DEAD, *, limit: int | None = None) -> int:
        """Delete dead jobs, those that ``wanted`` matches, ``limit`` in all, in lots; returns how many."""
        limit = None if limit is None else checks.whole("limit", limit, 1)
        self.open()
        return self._dead_jobs.delete(wanted, limit)

    # -- pausing -----------------------------------------------------------------------------------------

    def pause(self, type: str | None = None) -> bool:
        """Let no worker start jobs of ``type``, or of any type if None, until :meth:`resume`. Every worker sees it
        within a second; what runs goes on, and so does adding. False if it was paused already.
        """
        self.open()
        paused = self._store.pause(_type_or_all(type), self._store.now())
        self._maintenance.get().look_again()
        return paused

    def resume(self, type: str | None = None) -> bool:
        """End the pause of ``type``, or that of the whole queue if None: types that were paused by name stay so.
        False if there was none.
        """
        self.open()
        resumed = self._store.resume(_type_or_all(type))
        self._maintenance.get().look_again()
        return resumed

    def paused(self) -> dict[str | None, float]:
        """What is paused, and since when (seconds since 1970); None stands for the whole queue."""
        self.open()
        return {None if type == ALL_TYPES else type: since for type, since in self._store.paused().items()}

    def workers(self) -> list[Worker]:
        """The processes that wait for jobs of this store, in the order started. One that died is among them for a
        day, and not ``alive``: a worker is heard of every 5 seconds, also while its handlers are busy.
        """
        self.open()
        now = self._store.now()
        return [worker_of(record, now) for record in self._store.workers()]

    def purge_jobs(self, type: str) -> int:
        """Delete all jobs of ``type`` that do not run, and drain its tube; returns how many jobs."""
        job_type = checks.job_type(type)
        self._open_and_follow()
        total = 0
        while deleted := self._store.purge(job_type, PURGE_BATCH):
            total += deleted
        try:
            self._broker.drain(job_type)
        except BrokerError as error:
            self._logger.warning("purged, but the tube is not drained; runs will delete its entries: %s", error)
        return total

    def why(self, job_id: str) -> list[Answer]:
        """What keeps a job from running, what decides first: at least one answer; none if there is no such job.

        A broker that does not answer is one of the answers.
        """
        job_id = checks.job_id(job_id)
        self._open_and_follow()
        return self._inspection().why(job_id)

    def checkup(self) -> list[Symptom]:
        """What an operator should look at; empty if all is well. Raises :class:`~kqueue.StoreUnavailable`."""
        self._open_and_follow()
        return self._inspection().checkup()

    def empty_tubes(self, beginning: str) -> int:
        """Delete all entries of tubes that no store serves: those whose names begin so, that have a pointer at the
        front, and that nobody watches; returns how many. They are pointers, so no job is lost: a store that is in
        use after all puts its jobs again.

        Raises ``ValueError`` for this store's own, and :class:`~kqueue.BrokerUnavailable`.
        """
        beginning = checks.text("beginning", beginning)
        self._open_and_follow()
        return self._broker.empty(beginning)

    def backup(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        """Save the store as the file ``path``, while jobs are added and run: all that is in it at one moment.

        Raises ``ValueError`` for a path that is there, unless ``replace``, and :class:`~kqueue.StoreError` where
        the file cannot be written, the copy does not pass its check, or the store has other tools for it. See
        ``docs/backup.rst``.
        """
        self.open()
        self._store.backup(checks.path("path", path), replace=checks.flag("replace", replace))

    def restore(self, path: str | os.PathLike[str], *, replace: bool = False) -> list[str]:
        """Make the store anew from the backup ``path``. Nobody may use it meanwhile. The queue is closed by this.

        A store that is there is moved aside if ``replace``, and the names that it has then are returned; else
        ``ValueError`` is raised. Fences go on above any that were given since the backup was made.
        """
        path = checks.path("path", path)
        self.close()
        return self._store.restore(path, replace=checks.flag("replace", replace))

    def sweep(self) -> SweepReport:
        """Repair now what lost its pointer or its worker. ``run_jobs`` does it by itself when it is due.

        Raises :class:`~kqueue.BrokerUnavailable` after the store's own part is done, if the broker is down.
        """
        self._open_and_follow()
        return self._sweeper.sweep()

    def findings(self, limit: int = 100) -> Iterator[Finding]:
        """What :meth:`sweep` would do now, and why; none of it is done, in the store or in a tube.

        Up to ``limit`` findings of a kind; then one without a ``job_id`` says that there are more. They come one by
        one: first what the store alone tells, then what its tubes show. That raises
        :class:`~kqueue.BrokerUnavailable` if the broker is down. Behind an entry that is not ours nothing can be
        seen without burying it, so the dry run ends there for that tube.
        """
        from kqueue.admin.dry_run import DryRun  # noqa: PLC0415 (see test_layout.LAZY)

        limit = checks.whole("limit", limit, 1)
        self._open_and_follow()
        return DryRun(
            self._store,
            self._broker,
            max_crashes=self._max_crashes,
            horizon=self._sweeper.horizon,
            grace=GRACE_S,
            page=PAGE_TYPES,
            limit=limit,
        ).findings()

    def _open_and_follow(self) -> str:
        """Open what is not open, and see whether another store has taken the place of this one. What the names of
        the tubes begin with.
        """
        self.open()
        return self._naming.follow()

    def _inspection(self) -> Inspection:
        from kqueue.admin.inspection import Inspection  # noqa: PLC0415 (see test_layout.LAZY)

        return Inspection(
            self._store,
            self._broker,
            beginning=lambda: self._naming.beginning,
            limit_of=self._limiter.limit_of,
            sweep_interval=self._sweep_interval,
            max_crashes=self._max_crashes,
            clock=self._clock,
        )

    def _loops(self) -> Loops:
        from kqueue.loops.start import Loops  # noqa: PLC0415 (see test_layout.LAZY)

        streams.secure()
        return Loops(
            open=self._open_and_follow,
            context=self._make_context,
            broker=self._broker,
            sweeper=self._sweeper,
            registry=self._registry.get(),
            maintenance=self._maintenance.get(),
            handlers=self._handlers.all,
            mint=self._mint,
            renewer=self._renewers.get,
        )

    def _make_context(self) -> LoopContext:
        from kqueue.execution.context import LoopContext  # noqa: PLC0415 (see test_layout.LAZY)

        return LoopContext(
            self._store,
            self._doorbell,
            self._limiter,
            self._options,
            self._settle_s,
            self._clock,
            self._logger,
            self._telemetry,
            self._outages,
            self._registry.get().blames_interrupts,
        )

    def _make_maintenance(self) -> Maintenance:
        registry = self._registry.get()
        heartbeat = Heartbeat(
            store=self._store,
            id=self._mint.make(1)[0],
            types=self.types,
            note=lambda: {
                "loops": registry.isolation.loops(),
                **hanging_in(registry, self._clock.monotonic()).note(),
            },
            monotonic=self._clock.monotonic,
        )
        return Maintenance(
            pauses=Pauses(self._store, self._clock.monotonic),
            cron=self._cron,
            limiter=self._limiter,
            heartbeat=heartbeat,
            types=self.types,
            wake=registry.wake,
            logger=self._logger,
        )

    def _make_broker(self, broker: str | Broker | None) -> Broker:
        if broker is None:
            return EmbeddedBroker(self._store, clock=self._clock)
        if isinstance(broker, str):
            return open_broker(broker, logger=self._logger)
        return checks.instance("broker", broker, "subscribe")


def _type_or_all(type: str | None) -> str:
    return ALL_TYPES if type is None else checks.job_type(type)
