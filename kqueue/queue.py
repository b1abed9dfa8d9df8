"""KQueue: what users hold. Documents and delegates: :mod:`kqueue.assembly` joins what does the work."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self, Unpack

from kqueue.admin.changing import checked_change
from kqueue.admin.dead_jobs import ALL_DEAD, Filter, checked_search
from kqueue.assembly import Parts, assemble
from kqueue.contracts.broker import Broker
from kqueue.contracts.store import JobStore
from kqueue.dispatch.limiter import GivenLimits, checked_limit
from kqueue.loops.registry import Registry
from kqueue.loops.stopping import RunLimits
from kqueue.model import checks, handlers
from kqueue.model.around import Around
from kqueue.model.events import Event
from kqueue.model.handlers import AnyHandlerFunction, HandlerFunction, HandlerOptions, Types
from kqueue.model.history import LogLine
from kqueue.model.ids import is_job_id
from kqueue.model.job import EndedJobs, Job, JobInHand, Priority, State
from kqueue.model.options import GivenOptions, JobOptions, OneJobOptions, TypeOptions, check_names
from kqueue.model.reports import End, Finding, RunReport, ScheduleReport, Stats, SweepReport
from kqueue.model.schedule import MOST_TICKS
from kqueue.model.times import Duration, Instant
from kqueue.upkeep.cron import CronHandlerOptions, CronOptions, split
from kqueue.upkeep.heartbeat import Worker, workers_of
from kqueue.upkeep.hooks import Hook

if TYPE_CHECKING:
    from kqueue.admin.doctor import Symptom
    from kqueue.admin.why import Answer
    from kqueue.config.configuration import Configuration


class KQueue:
    """A job queue: jobs are kept in a store until their handler deletes them.

    At least once. Once, unless something fails. At most one holder can finish a job. A duplicate (its handler
    starts once more although nobody asked for it) comes only where a worker died or was frozen, a handler outlived
    its TTR, the store could not be written to, its clock jumped, or it forgot what it had acknowledged. Each of
    these costs a job at most one; no fault of beanstalkd costs any. So a handler has to be idempotent: ``job.id``
    is the same in each run, and ``job.fence`` is higher. What weaker settings give up: ``docs/settings.rst``.

    >>> queue = KQueue(store="sqlite:///jobs.db")                                      # nothing to start
    >>> queue = KQueue(store="sqlite:///jobs.db", broker="beanstalk://127.0.0.1:11300")

    One KQueue may be shared by threads, and used after a fork. It opens itself at its first use. Every call raises
    ``ValueError`` or ``TypeError`` for bad arguments before anything is written, and
    :class:`~kqueue.StoreUnavailable`, naming the address, when the store is not there.
    """

    def __init__(
        self,
        store: str | JobStore,
        broker: str | Broker | None = None,
        *,
        retry_delay: float = 30,
        max_tries: int | None = 30,
        delete_on_success: bool = False,
        max_age: Duration | None = None,
        max_crashes: int = 3,
        sweep_interval: float = 15,
        settle_ms: float = 20,
        max_payload: int = 15 * 2**20,
        max_result: int = 2**20,
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
        ``retry_delay``: seconds until a job that has failed once runs again; twice as many after each further
        time, up to a day; 0 stays 0. ``max_tries``: failed runs until it is dead, by default after some 18 days;
        None: never. Both hold for types without a retry policy of their own: see :meth:`options`.
        ``delete_on_success``: a job whose handler returns is deleted, where neither it nor its type says otherwise.
        ``max_age``: seconds after its add from which on a job whose run fails is dead. None: no end.
        ``max_crashes``: deaths of a worker that ran the job alone until it is dead. ``sweep_interval``: seconds
        between two repairs. ``settle_ms``: how long a job that has ended may wait to be written. ``max_payload``,
        ``max_result``: bytes once encoded. ``prefix``: of tube names, at most 10 characters, before the store's id;
        the store keeps the first that it was given. ``create``: whether to make a SQLite file that is missing, or
        raise :class:`~kqueue.StoreUnavailable`. ``logger``: by default "kqueue". ``log_payloads``: records show it.
        """
        self._parts = assemble(
            store,
            broker,
            retry_delay=retry_delay,
            max_tries=max_tries,
            delete_on_success=delete_on_success,
            max_age=max_age,
            max_crashes=max_crashes,
            sweep_interval=sweep_interval,
            settle_ms=settle_ms,
            max_payload=max_payload,
            max_result=max_result,
            prefix=prefix,
            create=create,
            logger=logger,
            log_payloads=log_payloads,
        )

    @classmethod
    def from_parts(cls, parts: Parts) -> Self:
        """Make a queue of what :func:`kqueue.assembly.assemble` has joined, with a clock of one's own."""
        queue = cls.__new__(cls)
        queue._parts = parts
        return queue

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | Configuration | None = None, **overrides: Any) -> Self:
        """Make a queue of what is configured: defaults, then TOML files, then the environment, then ``overrides``.

        ``path``: the file, or what :func:`kqueue.config.configuration.load` has read. None: the file that
        ``KQUEUE_CONFIG`` names, or else ``kqueue.toml`` here, if it is there. Beside it those of the environment
        that ``KQUEUE_ENV`` names, and of this machine: see ``docs/configuration.rst``. ``overrides``: arguments of
        ``KQueue``, by their names. Raises ``ValueError`` that names what is refused, and where it stands.
        """
        from kqueue.config.configuration import Configuration, load  # noqa: PLC0415 (see test_layout.LAZY)

        read = path if isinstance(path, Configuration) else load(path)
        queue = cls(**read.arguments(inspect.signature(cls).parameters, overrides))
        read.set_up(queue.options, queue.limit)
        return queue

    def open(self) -> None:
        """Open the store and learn the names of its tubes. Idempotent; every call that needs it does it. A
        beanstalkd is connected to at first use only, and need not be there: see :meth:`add_job`.
        """
        self._parts.opening.open()

    def close(self) -> None:
        """Close this process's connections. Idempotent; a later call opens again."""
        self._parts.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def store(self) -> JobStore:
        """Where the jobs are kept."""
        return self._parts.store

    @property
    def broker(self) -> Broker:
        """Where pointers to them go."""
        return self._parts.broker

    @property
    def prefix(self) -> str:
        """What the names of its tubes begin with: the ``prefix`` that was given, and the store's id."""
        return self._parts.opening.follow()

    @property
    def parts(self) -> Parts:
        """What it is made of: for a program that starts its loops in processes of its own."""
        return self._parts

    @property
    def registry(self) -> Registry:
        """The loops of this process and what they hold: for a program that looks after them."""
        return self._parts.registry

    @property
    def owner_tail(self) -> str:
        """How the ``lease_owner`` of every row ends that this process has claimed by this queue."""
        return self._parts.mint.tail()

    # -- options and adding ------------------------------------------------------------------------------

    def options(self, type: str, **given: Unpack[GivenOptions]) -> TypeOptions:
        """Set what holds for all jobs of ``type`` in this queue; returns all of its options. Each is set once.

        ``priority="normal"``, ``delay=0``, ``ttr=60``: of an add that gives none. ``retry``: a
        :class:`~kqueue.RetryPolicy`, instead of the queue's ``retry_delay`` and ``max_tries``; or by themselves
        ``retry_delay`` and ``max_tries``. ``keep_done=0``: seconds that a finished job is kept, with its result;
        ``tombstone=0``: at least so many. ``unique_for=0``: seconds that a unique key is taken at least.
        ``delete_on_success``, ``max_age``: as of the queue. A call's own arguments win.

        >>> queue.options("resize", ttr=30, priority="high", retry=RetryPolicy(max_tries=5, delay=[1, 10, 60]))

        Raises ``ValueError``, and sets nothing, for an unknown option, and for one that was set before.
        """
        return self._parts.options.set(checks.job_type(type), given)

    def add_job(self, type: str, payload: object = None, **given: Unpack[OneJobOptions]) -> str:
        """Add one job; when this returns its id, the job is durable: it is never lost, and runs until its handler
        deletes it or it is dead.

        ``payload``: any JSON value, or bytes. What is not given is as :meth:`options` says for the type, or else:
        ``priority``: "normal"; a :class:`~kqueue.Priority`, its name, or an integer 0..2**32-1, lower first.
        ``delay``: 0; seconds, or a ``timedelta``, until it may run; or ``run_at``: when, an aware ``datetime`` or
        seconds since 1970. ``ttr``: 60; seconds, at least 1, or a ``timedelta``, until others may take it.
        ``max_tries``, ``retry_delay``, ``keep_done``, ``tombstone``: as :meth:`options` has them; no function.

        ``unique``: a key of 1 to 200 characters. While a job of this type with this key waits or runs, and for its
        ``unique_for`` seconds (0) from its add whatever becomes of it, nothing is added, and its id is returned.
        ``limit_key``: jobs of one type and key count together where the type has limits.

        Nobody waits for a beanstalkd: a thread rings, and if it is down, jobs are found in the store. Raises
        :class:`~kqueue.AddFailed` when the store does not take it. A job that this calls ``unknown`` may be there:
        to add it again without a look may make two jobs. A ``KeyboardInterrupt`` and its like may come once the job
        is there: what leaves has its id in ``job_ids``, and in a note.
        """
        check_names("add_job", given, OneJobOptions)
        return self._parts.adding.add([self._parts.adding.check(type, [payload], **given)])[0]

    def add_jobs(self, type: str, payloads: Iterable[object], **given: Unpack[JobOptions]) -> list[str]:
        """Add one job for each payload, in one write; returns their ids in the same order.

        Arguments as for :meth:`add_job`, but for ``unique``. A payload may be a :class:`~kqueue.New`, which has its
        own, a unique key too; if that is another's, its id is returned. Raises :class:`~kqueue.AddFailed`: which
        were taken, which not, which may have been. What interrupts it has their ids in ``job_ids``.
        """
        check_names("add_jobs", given, JobOptions)
        return self._parts.adding.add(self._parts.adding.orders(type, payloads, given))

    # -- handlers and cron -------------------------------------------------------------------------------

    def add_handler(self, type: str, function: AnyHandlerFunction, **options: Unpack[HandlerOptions]) -> None:
        """Let ``function`` run the jobs of ``type``. It is called with a :class:`~kqueue.JobInHand`.

        It may be called again for a job whose worker died or whose lease ran out: make it safe to do twice. It
        deletes the job when the work is done and safe; a run longer than the TTR renews it before.
        ``delete_on_success``: a job whose handler returns is deleted, not retried as "not deleted"; what it returns
        is its result, but a :class:`~kqueue.Verdict` or a :class:`~kqueue.Snooze`, which it may also raise.
        ``retry``: the type's retry policy, as by :meth:`options`.
        ``auto_renew=False``: another process renews the lease at each third of the TTR while the handler runs,
        whatever that does; for a store that was given as an object, or is ``memory:``, a thread of this one.
        ``max_runtime``: with ``auto_renew``, seconds that the handler may run; then its job is retried with that
        reason, and what the handler still does to it changes nothing. ``kill``: with ``max_runtime``, under
        ``kqueue worker``: the process whose handler runs for longer is killed, and replaced.
        ``batch``: a call gets a list of so many jobs at most, each with an outcome of its own: see
        ``docs/lists.rst``.
        ``concurrency``: how many of its calls a process runs at once. Of an ``async def`` under :meth:`work`, by
        default 1; of a plain one at most, by default without a bound. What it returns is awaited if it can be.

        Raises ``ValueError`` if the type has a handler, or a retry policy and another is given.
        """
        job_type = checks.job_type(type)
        handlers.check_names("add_handler", options)
        handler = handlers.make(job_type, function, **options)
        self._parts.add_handler(job_type, handler, options.get("retry"))

    def handler(
        self, *types: str, **options: Unpack[HandlerOptions]
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """:meth:`add_handler` as a decorator, of one type or of several."""
        checks.job_types(types)
        handlers.check_names("handler", options)
        return handlers.registering(types, lambda type, function: self.add_handler(type, function, **options))

    def around(self, function: Around) -> Around:
        """Have a generator function of the job, or of a batch's list, go around each call: it yields once, while
        the handler runs, and what that raises is raised there. An async one goes around ``async def`` handlers. The
        first is the outermost.
        """
        return self._parts.handlers.surround(function)

    def on_start(self, function: Hook) -> Hook:
        """Have ``function()`` called in each process before it runs the first job, as to open a pool."""
        return self._parts.hooks.at_start.add(function)

    def on_stop(self, function: Hook) -> Hook:
        """Have ``function()`` called in a process whose last loop has ended, the last one given first."""
        return self._parts.hooks.at_stop.add(function)

    def remove_handler(self, type: str) -> bool:
        """Stop running jobs of ``type`` here; they stay for others. False if it had no handler."""
        return self._parts.remove_handler(checks.job_type(type))

    def types(self) -> list[str]:
        """The types that have a handler here, sorted."""
        return self._parts.handlers.types()

    def limit(self, type: str, **bounds: Unpack[GivenLimits]) -> None:
        """Let at most so many jobs of ``type`` run, over all workers of the store that say the same.

        ``running``: at once. ``running_per_key``: at once, of those that were added with the same ``limit_key``.
        ``starts``: in any ``period`` seconds (1 by default, a day at most), counted when a worker claims a job. One
        that has no place waits in the store as ``held``; a worker that dies gives its places back with its leases.
        Raises ``ValueError`` if the type has limits already.
        """
        self._parts.limiter.limit(checked_limit(type, **bounds))

    def add_cron(self, expression: str, type: str, payload: object = None, **options: Unpack[CronOptions]) -> None:
        """Add a job at each tick of a cron expression, once over all workers: whoever runs jobs of this queue adds
        it when it is due. The tick is the job's ``run_at``.

        ``expression``: ``minute hour day month weekday``, or with seconds before them. ``tz="UTC"``: a time zone's
        name. ``missed="last"``: what becomes of ticks that nobody noticed within a minute: ``none``: left out,
        ``last`` adds the last of them unless a later one is due, ``all`` adds each. ``name``: under which the store
        keeps the last tick; the type by default. ``priority`` and ``ttr``: of its jobs. Raises ``ValueError`` for
        what cannot be read, and for a taken name.
        """
        handlers.check_names("add_cron", options, "a schedule", CronOptions)
        self._parts.cron.plan(expression, type, payload, options)

    def cron(
        self,
        expression: str,
        *,
        type: str | None = None,
        payload: object = None,
        **options: Unpack[CronHandlerOptions],
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """:meth:`add_cron` and :meth:`add_handler` as one decorator. The type is the function's name by default."""
        of_cron, of_handler = split(options)
        handlers.check_names("cron", of_handler)

        def register(function: HandlerFunction) -> HandlerFunction:
            job_type = function.__name__ if type is None else type
            self._parts.handlers.refuse_second(checks.job_type(job_type))
            self.add_cron(expression, job_type, payload, **of_cron)
            self.add_handler(job_type, function, **of_handler)
            return function

        return register

    def schedules(self, ticks: int = 1) -> list[ScheduleReport]:
        """The schedules of this queue, and those that only the store knows: their last tick, the next ``ticks``."""
        return self._parts.opened().cron.reports(checks.whole("ticks", ticks, 1, MOST_TICKS))

    def has_coroutines(self) -> bool:
        """Whether any handler here is an ``async def``."""
        return any(handler.is_async for handler in self._parts.handlers.known().values())

    # -- running -----------------------------------------------------------------------------------------

    def run_jobs(
        self,
        count_limit: int | None = None,
        time_limit_ms: float | None = None,
        wait: bool = False,
        types: Types = None,
    ) -> RunReport:
        """Run ready jobs that have a handler here, or of ``types``, in order: see ``docs/beanstalkd.rst``.

        Returns after ``count_limit`` jobs; once ``time_limit_ms`` have passed (the running job ends first); when
        nothing is ready, unless ``wait``; or after :meth:`stop`. Without any limit it drains what is ready. If this
        process dies, the jobs that had started and were not settled start once more, with a higher fence.

        A handler that raises, or returns without having settled its job, has it retried. Only ``KeyboardInterrupt``
        and ``SystemExit`` end the loop; they are raised again once the unstarted jobs are given back. Raises
        ``StoreError`` when the store is down; with ``wait`` it tries again. A beanstalkd may be down. An async
        handler runs to its end before the next job. In an event loop: ``asyncio.to_thread``.
        """
        return self._parts.loops(types).run(RunLimits.checked(count_limit, time_limit_ms, wait))

    def work(
        self, threads: int = 1, time_limit_ms: float | None = None, wait: bool = True, types: Types = None
    ) -> RunReport:
        """Run jobs of all types that have a handler now, or of ``types``: of plain functions in ``threads``
        threads, and beside them those of each ``async def``, ``concurrency`` at once, all in one event loop.
        Returns, with what all did, once all have ended: at the time limit, after :meth:`stop`, or without ``wait``
        when nothing is ready for any. Coroutines that run then end by themselves. An error in one ends all.
        """
        limits = RunLimits.checked(None, time_limit_ms, wait)
        return self._parts.loops(types).work(checks.whole("threads", threads, 1), limits)

    def stop(self) -> None:
        """End ``run_jobs`` after its job, in all threads; or the next one, if none runs. From anywhere."""
        self._parts.registry.stop()

    def flush(self) -> None:
        """Settle now what has ended (it waits up to ``settle_ms``), in all threads, and ring for what was added."""
        self._parts.flush()

    # -- a job in hand -----------------------------------------------------------------------------------

    def delete_job(self, job: Job | str) -> bool:
        """The job is finished, or unwanted. True if there was one. Once durable, no worker can claim it again.
        With the job in hand, or the id of a job that runs in this queue, it is that job's own delete: settled
        with its window, so at most ``settle_ms`` later, and a crash before has it start once more. For any other it
        is the operator's: it needs no lease, and it is durable at once. False, too, for a text that is no id.
        """
        if isinstance(job, JobInHand):
            job.delete()
            return True
        job_id = checks.text("id", job.id if isinstance(job, Job) else job)
        return is_job_id(job_id) and self._parts.opened().delete(job_id)

    def renew_job(self, job: JobInHand) -> None:
        """Hold the job in hand for another TTR from now. Raises :class:`~kqueue.LeaseLost`."""
        checks.in_hand(job).renew()

    def unget_job(self, job: JobInHand, priority: Priority | str | int | None = None, delay: float = 0) -> None:
        """Give the job in hand back as if it had not run: no try is counted."""
        checks.in_hand(job).unget(priority, delay)

    def retry_job(self, job: Job | str, reason: str, delay: float | None = None) -> bool:
        """Run a job again. The job in hand: in ``delay`` seconds (by default as the retry policy says), or dead if
        its tries are used up. Any other: brought back at once if it is dead, its tries cleared; else False.
        """
        if isinstance(job, JobInHand):
            job.retry(reason, delay)
            return True
        job_id = checks.job_id(job.id if isinstance(job, Job) else job)
        checks.text("reason", reason)
        if delay is not None:
            raise ValueError("delay: only for a job in hand; a dead job is brought back at once")
        return bool(self._parts.opened().dead_jobs.revive([job_id], reason))

    # -- listening ---------------------------------------------------------------------------------------

    def subscribe(self, function: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``function`` with every :class:`~kqueue.Event` of this queue in this process; returns what ends it.
        It is called in the thread in which it happened, once durable; of a loop's jobs, from the next window on.
        It has to be quick, and may use the queue. What it raises is logged, once for each kind, but that a
        ``KeyboardInterrupt`` or ``SystemExit`` ends a main thread's loop. Raises ``ValueError`` for one subscribed.
        """
        checks.plain_function("function", function)
        return self._parts.subscribers.subscribe(function)

    def unsubscribe(self, function: Callable[[Event], object]) -> bool:
        """Call it no more. False if it was not subscribed."""
        return self._parts.subscribers.unsubscribe(function)

    # -- looking, cleaning and pausing -------------------------------------------------------------------

    def get_job(self, job_id: str) -> Job | None:
        """The job as it stands now; None if it is not there, also for a text that is no id."""
        is_id = is_job_id(checks.text("id", job_id))
        rows = self._parts.opened().store.get([job_id]) if is_id else []
        return Job(rows[0]) if rows else None

    def wait(self, job_id: str, timeout: Duration = 10) -> End:
        """Wait for the end of a job, for ``timeout`` seconds at most: ``done``, ``dead``, ``deleted``, ``timeout``,
        or ``unknown`` where it is not there. Raises ``ValueError`` if nobody keeps its end: see ``tombstone``.
        """
        return self._parts.opened().ends.wait([job_id], timeout)[0]

    def wait_all(self, job_ids: Iterable[str], timeout: Duration = 10) -> list[End]:
        """:meth:`wait` for several, ``timeout`` for all of them; in their order."""
        return self._parts.opened().ends.wait(checks.ids(job_ids), timeout)

    async def wait_async(self, job_id: str, timeout: Duration = 10) -> End:
        """:meth:`wait` in a coroutine."""
        return (await self._parts.opened().ends.wait_async([job_id], timeout))[0]

    async def wait_all_async(self, job_ids: Iterable[str], timeout: Duration = 10) -> list[End]:
        """:meth:`wait_all` in a coroutine."""
        return await self._parts.opened().ends.wait_async(checks.ids(job_ids), timeout)

    def ends(self, type: str | None = None, after: str | None = None, limit: int = 100) -> EndedJobs:
        """Up to ``limit`` jobs that have ended and are kept, in the order in which they ended. To go on, now or
        when more have, in any process, give the ``place`` that it returns as ``after``.
        """
        return self._parts.opened().ended(type, after, limit)

    def job_log(self, job_id: str, after: int | None = None, limit: int = 100) -> list[LogLine]:
        """Up to ``limit`` lines that runs of the job have logged. To go on, give the last number as ``after``."""
        number = None if after is None else checks.whole("after", after, 0)
        most, is_id = checks.whole("limit", limit, 1), is_job_id(checks.text("id", job_id))
        return self._parts.opened().store.job_log(job_id, number, most) if is_id else []

    def find_job(self, type: str, *, unique: str) -> Job | None:
        """The job that has the unique key, or had it last; None if it is not there any more, or there was none."""
        row = self._parts.opened().store.find_unique(checks.job_type(type), checks.key("unique", unique))
        return None if row is None else Job(row)

    def jobs(
        self, type: str | None = None, state: str = State.DEAD, limit: int = 100, after: str | None = None
    ) -> list[Job]:
        """Up to ``limit`` jobs in one state (a :class:`~kqueue.State` or its name), of one type or of all, in the
        order of their ids. To page, give the last id as ``after``.
        """
        return [job for lot in self.search(state, Filter(type), limit=limit, after=after) for job in lot]

    def counts(self, type: str | None = None) -> dict[str, int]:
        """Jobs by state (``delayed ready held running dead done``, always all), of one type or of all."""
        job_type = None if type is None else checks.job_type(type)
        return self._parts.opened().store.counts(job_type)

    def stats(self) -> Stats:
        """What this process has counted of each type, and what waits in the store. It may read every row."""
        return self._parts.opened().stats()

    def retry_dead(self, reason: str, wanted: Filter = ALL_DEAD, *, limit: int | None = None) -> int:
        """Bring dead jobs back, those that ``wanted`` matches, ``limit`` in all, their tries cleared; how many."""
        checks.text("reason", reason)
        return self._parts.opened().dead_jobs.retry(*checked_search(wanted, limit), reason)

    def retry_delayed(self, wanted: Filter = ALL_DEAD, *, limit: int | None = None) -> int:
        """Run now what waits for its retry, as after an outage: those that ``wanted`` matches; how many."""
        return self._parts.opened().dead_jobs.hasten(*checked_search(wanted, limit))

    def search(
        self, state: str, wanted: Filter = ALL_DEAD, *, limit: int | None = None, after: str | None = None
    ) -> Iterator[list[Job]]:
        """Jobs in one state, those that ``wanted`` matches, ``limit`` in all: in lots of at most 100, in the order
        of their ids, those after the id ``after``.
        """
        job_state, after = checks.state(state), None if after is None else checks.job_id(after)
        asked = checked_search(wanted, limit)
        found = self._parts.opened().dead_jobs.find(*asked, job_state, after)
        return ([Job(row) for row in lot] for lot in found)

    def dead_jobs(self, wanted: Filter = ALL_DEAD, *, limit: int | None = None) -> Iterator[list[Job]]:
        """:meth:`search` among the dead ones."""
        return self.search(State.DEAD, wanted, limit=limit)

    def delete_dead(self, wanted: Filter = ALL_DEAD, *, limit: int | None = None) -> int:
        """Delete dead jobs, those that ``wanted`` matches, ``limit`` in all, in lots; returns how many."""
        return self._parts.opened().dead_jobs.delete(*checked_search(wanted, limit))

    def change_job(
        self,
        job: Job | str,
        *,
        priority: Priority | str | int | None = None,
        delay: Duration | None = None,
        run_at: Instant | None = None,
    ) -> bool:
        """Give a job that waits (ready, delayed or held) another priority, or time to run at: in ``delay`` seconds
        from now, or ``run_at``; 0 is now. True if it was changed; False if it runs, has ended, or is not there.
        """
        job_id = checks.text("id", job.id if isinstance(job, Job) else job)
        wanted = checked_change(priority, delay, run_at)
        return is_job_id(job_id) and self._parts.opened().changing.change(job_id, wanted)

    def pause(self, type: str | None = None, *, here: bool = False) -> bool:
        """Let no worker, or ``here`` not this process, start jobs of ``type``, or any if None. False if it was."""
        return self._parts.pause(type, here=checks.flag("here", here))

    def resume(self, type: str | None = None, *, here: bool = False) -> bool:
        """End such a pause of ``type``, or if None that of the whole queue alone. False if there was none."""
        return self._parts.resume(type, here=checks.flag("here", here))

    def paused(self) -> dict[str | None, float]:
        """What is paused, and since when (seconds since 1970); None stands for the whole queue."""
        return self._parts.opened().pausing.paused()

    def workers(self) -> list[Worker]:
        """The processes that wait for jobs, in the order started. One that died is among them for a day."""
        return workers_of(self._parts.opened().store)

    def purge_jobs(self, type: str) -> int:
        """Delete all jobs of ``type`` that do not run, and drain its tube; returns how many jobs."""
        checks.job_type(type)
        return self._parts.followed().purge(type)

    def why(self, job_id: str) -> list[Answer]:
        """What keeps a job from running, what decides first, a broker too; nothing if there is no such job."""
        checks.job_id(job_id)
        return self._parts.followed().inspection().why(job_id)

    def checkup(self) -> list[Symptom]:
        """What an operator should look at; empty if all is well. Raises :class:`~kqueue.StoreUnavailable`."""
        return self._parts.followed().inspection().checkup()

    def empty_tubes(self, beginning: str) -> int:
        """Delete all entries of tubes whose names begin so, that have a pointer at the front, and nobody watches;
        returns how many. Raises ``ValueError`` for this store's own.
        """
        checks.text("beginning", beginning)
        return self._parts.followed().broker.empty(beginning)

    def backup(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        """Save the store as the file ``path``, while jobs are added and run. Raises ``ValueError`` for one that is
        there, unless ``replace``; :class:`~kqueue.StoreError` where it fails, or the store has other tools for it.
        """
        self._parts.opened().store.backup(checks.path("path", path), replace=checks.flag("replace", replace))

    def restore(self, path: str | os.PathLike[str], *, replace: bool = False) -> list[str]:
        """Make the store anew from the backup ``path``. Nobody may use it meanwhile; it closes the queue. One that
        is there is moved aside if ``replace``, to what is returned; else ``ValueError`` is raised. Fences go on.
        """
        path = checks.path("path", path)
        self.close()
        return self._parts.store.restore(path, replace=checks.flag("replace", replace))

    def sweep(self) -> SweepReport:
        """Repair now what lost its pointer or its worker; ``run_jobs`` does it when it is due. With the broker down
        it raises :class:`~kqueue.BrokerUnavailable` after the store's own part.
        """
        return self._parts.followed().sweeper.sweep()

    def findings(self, limit: int = 100) -> Iterator[Finding]:
        """What :meth:`sweep` would do now, and why; none of it is done, in the store or in a tube.

        Up to ``limit`` of a kind; then one without a ``job_id`` says that there are more. First what the store
        tells, then what its tubes show, up to an entry not ours: :class:`~kqueue.BrokerUnavailable` if it is down.
        """
        limit = checks.whole("limit", limit, 1)
        return self._parts.followed().dry_run(limit).findings()
