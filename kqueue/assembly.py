"""Joins a store, a broker, a clock and all else that a queue is made of. The one place where that is done.

Whoever wants a queue that lives by a clock of their own makes its parts here, and the queue of them:

>>> clock = ManualClock()
>>> parts = assemble(MemoryStore(clock), clock=clock, retry_delay=0)
>>> queue = KQueue.from_parts(parts)

A store that is opened by its URL has a clock of its own, the host's or its server's; one that is made as above has
the one that it was given.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kqueue.admin.changing import Changing
from kqueue.admin.dead_jobs import DeadJobs
from kqueue.admin.hanging import hanging_in
from kqueue.admin.purge import purge
from kqueue.brokers import open_broker
from kqueue.brokers.embedded import EmbeddedBroker
from kqueue.contracts.broker import Broker
from kqueue.contracts.rules import GRACE_S
from kqueue.contracts.store import JobStore
from kqueue.dispatch.adding import Adding
from kqueue.dispatch.doorbell import Doorbell
from kqueue.dispatch.limiter import Limiter
from kqueue.dispatch.naming import Naming
from kqueue.dispatch.opening import Opening
from kqueue.dispatch.tubes_then_store import Dispatching
from kqueue.loops.registry import Registry
from kqueue.model import checks, times
from kqueue.model.handlers import Handler, Handlers, Types
from kqueue.model.job import EndedJobs, Job
from kqueue.model.options import Options, TypeOptions
from kqueue.model.payload import MAX_RESULT
from kqueue.model.reports import Stats
from kqueue.model.retry import RetryPolicy, growing
from kqueue.model.times import Duration
from kqueue.renewal import open_renewer
from kqueue.stores import open_store
from kqueue.system import streams
from kqueue.system.clock import Clock, SystemClock
from kqueue.system.forks import PerProcess
from kqueue.system.mint import IdMint
from kqueue.telemetry.counters import Lately
from kqueue.telemetry.outages import Outages
from kqueue.telemetry.subscribers import Subscribers
from kqueue.telemetry.telemetry import Telemetry
from kqueue.upkeep.cron import Cron
from kqueue.upkeep.heartbeat import Heartbeat
from kqueue.upkeep.hooks import Hooks
from kqueue.upkeep.maintenance import Maintenance
from kqueue.upkeep.pauses import Pauses, Pausing
from kqueue.upkeep.sweep import PAGE_TYPES, Sweeper

if TYPE_CHECKING:
    from kqueue.admin.dry_run import DryRun
    from kqueue.admin.ends import Ends
    from kqueue.admin.inspection import Inspection
    from kqueue.execution.context import LoopContext
    from kqueue.loops.start import Loops
    from kqueue.renewal.client import Client


#: Delayed jobs that are due which are counted among those that wait, at most.
MOST_DUE = 10_000


@dataclass(frozen=True, slots=True)
class Parts:
    """Of one queue. Those in a :class:`~kqueue.system.forks.PerProcess` are made anew after a fork."""

    store: JobStore
    broker: Broker
    clock: Clock
    logger: logging.Logger
    naming: Naming
    opening: Opening
    options: Options
    handlers: Handlers
    hooks: Hooks
    mint: IdMint
    doorbell: Doorbell
    dispatching: Dispatching
    adding: Adding
    limiter: Limiter
    cron: Cron
    sweeper: Sweeper
    dead_jobs: DeadJobs
    changing: Changing
    pausing: Pausing
    subscribers: Subscribers
    telemetry: Telemetry
    outages: Outages
    renewers: PerProcess[Client]
    registries: PerProcess[Registry]
    maintenances: PerProcess[Maintenance]
    waiting: PerProcess[Ends]
    #: Deaths of a worker that ran a job alone until the job is dead.
    max_crashes: int
    #: Seconds that an ended job of a window may wait to be written.
    settle_s: float
    #: Seconds between two rounds of the sweep.
    sweep_interval: float
    #: Bytes of a result at most, once encoded.
    max_result: int

    @property
    def registry(self) -> Registry:
        """The loops of this process and what they have in hand."""
        return self.registries.get()

    @property
    def maintenance(self) -> Maintenance:
        """What this process does beside the jobs, from time to time."""
        return self.maintenances.get()

    @property
    def renewer(self) -> Client:
        """What renews the leases of this process's handlers."""
        return self.renewers.get()

    @property
    def ends(self) -> Ends:
        """What waits for the ends of jobs, for all of this process."""
        return self.waiting.get()

    def opened(self) -> Parts:
        """These, once the store is open."""
        self.opening.open()
        return self

    def followed(self) -> Parts:
        """These, once the store is open and its tubes are known to be its own."""
        self.opening.follow()
        return self

    def add_handler(self, type: str, handler: Handler, retry: RetryPolicy | None) -> None:
        """Let it run the jobs of ``type``, which get this retry policy if one is given.

        Raises ``ValueError`` if the type has a handler, or a retry policy and another is given.
        """
        _load_loops()
        self.handlers.refuse_second(type)
        if retry is not None:
            self.options.set(type, {"retry": retry})
        self.handlers.add(type, handler)
        self.registry.wake()

    def pause(self, type: str | None, *, here: bool) -> bool:
        """See :meth:`kqueue.KQueue.pause`. Raises ``StoreError``."""
        if not here:
            return self.opened().pausing.pause(type)
        paused = self.handlers.pause(None if type is None else checks.job_type(type))
        self.registry.wake()
        return paused

    def resume(self, type: str | None, *, here: bool) -> bool:
        """See :meth:`kqueue.KQueue.resume`. Raises ``StoreError``."""
        if not here:
            return self.opened().pausing.resume(type)
        resumed = self.handlers.resume(None if type is None else checks.job_type(type))
        self.registry.wake()
        return resumed

    def remove_handler(self, type: str) -> bool:
        """Run no more jobs of ``type`` here; False if it had no handler."""
        had = self.handlers.remove(type)
        self.registry.wake()
        return had

    def delete(self, job_id: str) -> bool:
        """Delete the job, also where it runs here: see :meth:`kqueue.KQueue.delete_job`. Raises ``StoreError``."""
        if any(jobs.delete_by_id(job_id) for jobs in self.registry.in_hand()):
            return True
        deleted = self.store.delete([job_id]) > 0
        for jobs in self.registry.in_hand():  # it may have been claimed here meanwhile
            jobs.drop(job_id)
        return deleted

    def ended(self, type: object, after: object, limit: object) -> EndedJobs:
        """See :meth:`kqueue.KQueue.ends`. Raises ``StoreError``."""
        most = checks.whole("limit", limit, 1)
        place = None if after is None else checks.text("after", after)
        rows, place = self.store.ends(None if type is None else checks.job_type(type), place, most)
        return EndedJobs([Job(row) for row in rows], place)

    def purge(self, type: str) -> int:
        """See :func:`kqueue.admin.purge.purge`."""
        return purge(self.store, self.broker, type, self.logger)

    def stats(self) -> Stats:
        """What this process counted, and what waits in the store now. Raises ``StoreError``."""
        now = self.store.now()
        due = Counter(one.type for one in self.store.find_due(now, MOST_DUE))
        return self.telemetry.counters.stats(self.store.overview(), due, now)

    def flush(self) -> None:
        """Settle what has ended, and put what was added. Raises ``StoreError``."""
        for jobs in self.registry.in_hand():
            jobs.flush()
        self.doorbell.flush()

    def close(self) -> None:
        """Close this process's connections. Idempotent."""
        renewer = self.renewers.existing()
        if renewer is not None:
            renewer.close()
        self.doorbell.close()
        self.opening.close()

    def loop_context(self) -> LoopContext:
        """A new one, for one loop."""
        from kqueue.execution.context import LoopContext  # noqa: PLC0415 (see test_layout.LAZY)

        return LoopContext(
            self.store,
            self.doorbell,
            self.limiter,
            self.options,
            self.settle_s,
            self.clock,
            self.logger,
            self.telemetry,
            self.outages,
            self.registry.blames_interrupts,
            self.max_result,
        )

    def loops(self, types: Types = None) -> Loops:
        """What runs jobs of ``types`` in this process; None: of all. Raises ``ValueError`` and ``TypeError``."""
        from kqueue.loops.start import Loops  # noqa: PLC0415 (see test_layout.LAZY)

        streams.secure()
        handlers, known = self.handlers.only(types)
        return Loops(
            open=self.opening.follow,
            context=self.loop_context,
            subscribe=self.dispatching.subscribe,
            sweeper=self.sweeper,
            registry=self.registry,
            maintenance=self.maintenance,
            handlers=handlers,
            known=known,
            mint=self.mint,
            renewer=self.renewers.get,
            hooks=self.hooks,
        )

    def inspection(self) -> Inspection:
        """What says why a job does not run, and what an operator should look at."""
        from kqueue.admin.inspection import Inspection  # noqa: PLC0415 (see test_layout.LAZY)

        return Inspection(
            self.store,
            self.broker,
            beginning=lambda: self.naming.beginning,
            limit_of=self.limiter.limit_of,
            sweep_interval=self.sweep_interval,
            max_crashes=self.max_crashes,
            clock=self.clock,
        )

    def dry_run(self, most: int) -> DryRun:
        """Of a sweep at this moment. ``most``: findings of a kind."""
        from kqueue.admin.dry_run import DryRun  # noqa: PLC0415 (see test_layout.LAZY)

        return DryRun(
            self.store,
            self.broker,
            max_crashes=self.max_crashes,
            horizon=self.sweeper.horizon,
            grace=GRACE_S,
            page=PAGE_TYPES,
            most=most,
        )


def assemble(
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
    max_result: int = MAX_RESULT,
    prefix: str | None = None,
    create: bool = True,
    logger: logging.Logger | None = None,
    log_payloads: bool = False,
    clock: Clock | None = None,
) -> Parts:
    """Check the arguments, which are those of :class:`~kqueue.KQueue`, and join what they say. Nothing is opened.

    ``clock``: where all parts ask for the time, but for a store, and a broker that is given as an object; None: the
    host's. Raises ``ValueError`` or ``TypeError`` that names the argument.
    """
    retry = RetryPolicy(max_tries=max_tries, delay=growing(checks.number("retry_delay", retry_delay, 0)))
    max_crashes = checks.whole("max_crashes", max_crashes, 1)
    sweep_interval = checks.number("sweep_interval", sweep_interval, 0.01)
    settle_s = checks.number("settle_ms", settle_ms, 0) / 1000
    max_payload = checks.whole("max_payload", max_payload, 0)
    max_result = checks.whole("max_result", max_result, 0)
    prefix = None if prefix is None else checks.prefix(prefix)
    logger = logging.getLogger("kqueue") if logger is None else checks.logger(logger)
    clock = SystemClock() if clock is None else clock
    create = checks.flag("create", create)
    job_store = _store(store, create, logger)
    entries = _broker(broker, job_store, clock, logger)
    # An object may have a clock of its own, or a client, which no URL hands on.
    url = job_store.shared_url if isinstance(store, str) else None
    deletes = checks.flag("delete_on_success", delete_on_success)
    max_age = None if max_age is None else times.seconds_above_0("max_age", max_age)
    options = Options(TypeOptions(retry=retry, delete_on_success=deletes, max_age=max_age))
    address = entries.address if isinstance(broker, str) else None
    naming = Naming(job_store, entries, prefix, clock.monotonic, address=address)
    opening = Opening(job_store, entries, naming)
    subscribers = Subscribers(logger)
    log_payloads = checks.flag("log_payloads", log_payloads)
    telemetry = Telemetry(subscribers, clock, job_store.now, logger, log_payloads=log_payloads)
    outages = Outages(telemetry, clock)
    doorbell = Doorbell(entries, clock, logger, outages)
    mint = IdMint()
    adding = Adding(
        open=opening.open,
        follow=naming.follow,
        store=job_store,
        doorbell=doorbell,
        options=options,
        max_payload=max_payload,
        mint=mint,
        telemetry=telemetry,
        monotonic=clock.monotonic,
    )
    limiter = Limiter(job_store, doorbell, clock.monotonic, logger)
    cron = Cron(job_store, adding, clock.monotonic, logger)
    sweeper = Sweeper(
        job_store,
        entries,
        doorbell,
        interval=sweep_interval,
        max_crashes=max_crashes,
        clock=clock,
        logger=logger,
        telemetry=telemetry,
        outages=outages,
    )
    handlers = Handlers()
    registries = PerProcess(lambda: Registry(clock))

    def make_maintenance() -> Maintenance:
        registry = registries.get()
        lately = Lately(telemetry.counters, clock.monotonic)
        heartbeat = Heartbeat(
            store=job_store,
            id=mint.make(1)[0],
            types=lambda: sorted({type for loop in registry.loops() for type in loop.types()}),
            note=lambda: {
                "loops": registry.isolation.loops(),
                **hanging_in(registry, clock.monotonic()).note(),
                **lately.note(),
            },
            monotonic=clock.monotonic,
        )
        return Maintenance(
            pauses=Pauses(job_store, clock.monotonic),
            cron=cron,
            limiter=limiter,
            heartbeat=heartbeat,
            types=handlers.types,
            wake=registry.wake,
            logger=logger,
        )

    maintenances = PerProcess(make_maintenance)
    return Parts(
        store=job_store,
        broker=entries,
        clock=clock,
        logger=logger,
        naming=naming,
        opening=opening,
        options=options,
        handlers=handlers,
        hooks=Hooks(logger),
        mint=mint,
        doorbell=doorbell,
        dispatching=Dispatching(job_store, entries, doorbell, outages=outages, clock=clock, logger=logger),
        adding=adding,
        limiter=limiter,
        cron=cron,
        sweeper=sweeper,
        dead_jobs=DeadJobs(job_store, doorbell),
        changing=Changing(job_store, doorbell),
        pausing=Pausing(job_store, lambda: maintenances.get().look_again()),
        subscribers=subscribers,
        telemetry=telemetry,
        outages=outages,
        renewers=PerProcess(lambda: open_renewer(job_store, url, logger)),
        registries=registries,
        maintenances=maintenances,
        waiting=PerProcess(lambda: _ends(job_store, options, clock)),
        max_crashes=max_crashes,
        settle_s=settle_s,
        sweep_interval=sweep_interval,
        max_result=max_result,
    )


def _load_loops() -> None:
    """Before the first job is to run: then the process may have no file left to read a module from, and has to wait
    for one, which is what the loops do.
    """
    from kqueue.loops import start  # noqa: F401, PLC0415 (see test_layout.LAZY)


def _ends(store: JobStore, options: Options, clock: Clock) -> Ends:
    from kqueue.admin.ends import Ends  # noqa: PLC0415 (see test_layout.LAZY)

    return Ends(store, options, clock)


def _store(store: str | JobStore, create: bool, logger: logging.Logger) -> JobStore:
    if isinstance(store, str):
        return open_store(store, create=create, logger=logger)
    return checks.instance("store", store, "claim")


def _broker(broker: str | Broker | None, store: JobStore, clock: Clock, logger: logging.Logger) -> Broker:
    if broker is None:
        return EmbeddedBroker(store, clock=clock)
    if isinstance(broker, str):
        return open_broker(broker, clock=clock, logger=logger)
    return checks.instance("broker", broker, "subscribe")
