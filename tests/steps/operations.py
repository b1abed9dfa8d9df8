"""The operations: small, deterministic pieces of a job's life on a real KQueue, at each I/O call of which it fails.

``arrange`` is done by other processes before, for whom no fault is meant; ``act`` is what fails. What others do in
between is :meth:`tests.steps.tap.Tap.unheard`.
"""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from kqueue import AddFailed, JobInHand, KQueue, LeaseLost
from kqueue.contracts.admission import Limit
from kqueue.contracts.broker import Entry, EntryFate, Pointer
from kqueue.contracts.budget import Budget
from kqueue.contracts.intake import Tick
from kqueue.contracts.operator import ALL_TYPES
from kqueue.contracts.runs import Claim, RunsInOneWrite, Selection
from kqueue.contracts.settlements import Finish, Settled, Unget
from kqueue.contracts.store import JobStore
from kqueue.contracts.workers import WorkerRecord
from kqueue.dispatch import group_commit
from kqueue.model.job import Row
from kqueue.stores.mongo.schema import DELAYED
from kqueue.stores.sqlite.intake import MANY
from kqueue.testing.contracts.rows import add_unique as add_with_key
from tests.steps.house import STRANGER, TTR, TYPES, House
from tests.tubes import PATIENCE_S, await_true
from tests.tubes import run as start

#: Bytes. Both stores keep such payloads apart.
LARGE = 20_000
#: Seconds, longer than pointers wait in a tube.
FAR = 10_000.0


def _nothing(house: House) -> None:
    pass


def _nothing_more(queue: KQueue) -> None:
    pass


@dataclass(frozen=True)
class Operation:
    """One of them."""

    name: str
    act: Callable[[House], None]
    arrange: Callable[[House], None] = _nothing
    #: After the queue is open, and before it acts.
    meanwhile: Callable[[House], None] = _nothing
    #: Where it makes a difference: a word of the place's name.
    only: str = ""
    #: What its queue serves.
    types: tuple[str, ...] = TYPES
    #: Whether the queue is open before it acts.
    opened: bool = True
    #: Whether it finds no schema.
    new: bool = False
    #: Whether its queue goes by the clock of the house, or else by the store's own.
    timed: bool = True
    #: What is done after each sweep of the repair: what a sweep leaves to others.
    repair: Callable[[KQueue], None] = _nothing_more


# -- add -------------------------------------------------------------------------------------------------


def open_add_close(house: House) -> None:
    house.queue.store.exists()
    house.queue.open()
    house.add("first")
    house.queue.close()


def add(house: House) -> None:
    house.add("single")
    house.add("a", "b", type="u", priority="bulk", delay=30)
    house.add("far", delay=FAR)


def add_many(house: House) -> None:
    """More than go into one statement."""
    house.add(*(f"one of {MANY + 1}: {number}" for number in range(MANY + 1)))


def add_large(house: House) -> None:
    house.add("a", "b", size=LARGE)


def add_with_others(house: House) -> None:
    """One thread writes for two more, and the fault is its own: each is told what became of its job. Where they are
    to write by themselves, they do so after it: else who opens the file again would be another in each run.
    """
    group = house.queue._parts.adding._group_commit._groups.get()
    first, has_ended, add_rows = threading.get_ident(), threading.Event(), house.queue.store.add

    def in_turn(rows: Sequence[Row]) -> None:
        if threading.get_ident() != first:
            assert has_ended.wait(PATIENCE_S)
        add_rows(rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(house.queue.store, "add", in_turn)
        patch.setattr(group_commit, "is_main_thread", lambda: False)
        patch.setattr(group_commit, "PATIENCE_S", PATIENCE_S)
        with group._turn:
            others = [start(partial(_add_or_be_refused, house, label)) for label in ("b", "c")]
            await_true(lambda: len(group._waiting) == len(others))
        try:
            house.add("a")
        finally:
            has_ended.set()
            for other in others:
                other.join(PATIENCE_S)


def _add_or_be_refused(house: House, label: str) -> None:
    with suppress(AddFailed):
        house.add(label)


def add_again(house: House) -> None:
    """An id that is there already is refused: of a new row, and of one that has run elsewhere."""
    store = house.queue.store
    [row] = store.find("t", "ready", None, 1)
    for rows in ([row], [row._replace(failures=1)]):
        with suppress(AddFailed):
            store.add(rows)


# -- run -------------------------------------------------------------------------------------------------


def some_jobs(house: House) -> None:
    other = house.another()
    house.add("a", "b", "c", queue=other)
    house.add("d", queue=other, type="u", priority="high")


def run(house: House) -> None:
    house.queue.run_jobs()


def jobs_that_fall_due(house: House) -> None:
    """So soon after a sweep that no other is due."""
    other = house.another()
    house.add("a", "b", queue=other, delay=2)
    other.sweep()
    house.clock.advance(2)


def delayed_jobs(house: House) -> None:
    house.add("a", "b", queue=house.another(), delay=30)
    house.clock.advance(30)


def large_jobs(house: House) -> None:
    house.add("a", "b", "c", queue=house.another(), size=LARGE)


def jobs_of_every_end(house: House) -> None:
    house.add("retry", "retry-later", "unget", "raise", "forget", "plain", queue=house.another())


def end_in_every_way(house: House) -> None:
    house.acts |= {
        "retry": _at_first(house, lambda job: job.retry("again", delay=0)),
        "retry-later": _at_first(house, lambda job: job.retry("later", delay=30)),
        "unget": _at_first(house, lambda job: job.unget(priority="low")),
        "forget": _at_first(house, lambda job: None),
        "raise": _refuse,
    }
    house.queue.run_jobs()


def jobs_of_a_batch(house: House) -> None:
    labels = ("a", "retry", "retry-later", "unget", "forget", "b", "c", "raise", "d", "e")
    house.add(*labels, queue=house.another())


def run_batches(house: House) -> None:
    """Lists of jobs that end in every way, and one that ends its call when some of it have ended."""
    house.acts |= {
        "retry": _at_first(house, lambda job: job.retry("again", delay=0)),
        "retry-later": _at_first(house, lambda job: job.retry("later", delay=30)),
        "unget": _at_first(house, lambda job: job.unget(priority="low")),
        "forget": _at_first(house, lambda job: None),
        "raise": _at_first(house, _refuse),
    }
    house.queue.remove_handler("t")
    house.queue.add_handler("t", house.run_each, batch=4)
    house.queue.run_jobs()


def renew(house: House) -> None:
    def act(job: JobInHand) -> None:
        job.renew()
        house.end(job)

    house.acts["a"] = act
    house.queue.run_jobs(count_limit=1)
    house.queue.flush()


def jobs_to_interrupt(house: House) -> None:
    house.add("a", "interrupt", "b", "c", queue=house.another())


def be_interrupted(house: House) -> None:
    house.acts["interrupt"] = _at_first(house, _interrupt)
    with suppress(KeyboardInterrupt):
        house.queue.run_jobs()


def jobs_to_take(house: House) -> None:
    house.add("late-delete", "late-renew", queue=house.another())


def come_late(house: House) -> None:
    """A lease runs out while the handler works, and another process takes the job and dies."""
    with house.tap.unheard():
        other = house.another()

    def late(end: Callable[[JobInHand], object]) -> Callable[[JobInHand], None]:
        def act(job: JobInHand) -> None:
            with house.tap.unheard():
                house.clock.advance(TTR + 1)
                other.sweep()
                _claim(other, job.id)
            with suppress(LeaseLost):
                end(job)
                raise AssertionError("a late holder was not told")

        return _at_first(house, act)

    house.acts |= {
        "late-delete": late(lambda job: job.delete()),
        "late-renew": late(lambda job: job.renew()),
    }
    for _ in house.acts:
        house.queue.run_jobs(count_limit=1)


def jobs_to_steal(house: House) -> None:
    house.add("a", "stolen-delete", "b", "stolen-retry", "c", queue=house.another())


def be_stolen_from(house: House) -> None:
    """Some jobs of a window are deleted by an operator while their handlers run."""

    def stolen(end: Callable[[JobInHand], object]) -> Callable[[JobInHand], None]:
        def act(job: JobInHand) -> None:
            with house.tap.unheard():
                _delete(house, house.another(), job.id)
            end(job)

        return act

    house.acts |= {
        "stolen-delete": stolen(lambda job: job.delete()),
        "stolen-retry": stolen(lambda job: job.retry("stolen")),
    }
    house.queue.run_jobs()


def stale_pointers(house: House) -> None:
    """One whose row is gone, between those of two others, and one whose row is not due yet."""
    other = house.another()
    house.add("a", queue=other)
    house.add("b", queue=other)
    [gone] = house.add("gone", queue=other)
    house.add("c", queue=other)
    [later] = house.add("later", queue=other, delay=30)
    _delete(house, other, gone)
    other.broker.put([(Pointer("t", 0, house.clock.time(), (later,)), 0.0)])


def contested_jobs(house: House) -> None:
    other = house.another()
    other.sweep()
    house.add("a", "b", "c", queue=other)


def contest(house: House) -> None:
    """An operator deletes a job between the look at it and its claim."""
    [first, *_] = house.queue.store.find("t", "ready", None, 1)
    house.tap.meanwhile("mongo: find kqueue_jobs by _id $nor type", lambda: _delete_by_another(house, first.id))
    house.queue.run_jobs()


def strangers(house: House) -> None:
    house.add("a", queue=house.another())
    for type in TYPES:
        with house.at_tube(type) as client:
            client.put(STRANGER, priority=0)


def sweep_and_run(house: House) -> None:
    house.queue.sweep()
    house.queue.run_jobs()


def drop_an_index(house: House) -> None:
    house.documents().drop_index(DELAYED)


def wait(house: House) -> None:
    """A job comes while a loop waits for one."""
    subscription = house.queue.broker.subscribe(["t"])
    house.tap.meanwhile("tube: waiting reserve", lambda: house.add("rung", queue=house.another()))
    try:
        reservation = subscription.reserve(1, 50)
        subscription.settle([EntryFate(entry, 0.0) for entry in reservation.entries])
    finally:
        subscription.close()


def reserve_for_some_types(house: House) -> None:
    """One type has no room, and has some again: its tube is left out meanwhile."""
    subscription = house.queue.broker.subscribe(["t", "u"])
    entries: list[Entry] = []
    try:
        for has_room in ("u", "u", "tu", "tu"):
            entries += subscription.reserve(1, 0, lambda type: int(type in has_room)).entries  # noqa: B023
        subscription.settle([EntryFate(entry, 0.0) for entry in entries])
    finally:
        subscription.close()


# -- sweep -----------------------------------------------------------------------------------------------


def a_lot_to_repair(house: House) -> None:
    other = house.another()
    dead = [*house.add("doomed", queue=other)]
    house.note("doomed", ids=dead)
    for _ in range(2):
        _claim(other, *dead, alone=True)
        house.clock.advance(TTR)
        other.sweep()
    _claim(other, *dead, alone=True)
    _claim(other, *house.add("blamed", queue=other), alone=True)
    _claim(other, *house.add("suspect", "another", queue=other))
    house.add("lost", "lost-too", queue=other)
    house.add("due", queue=other, type="u", delay=30)
    other.broker.drain("t")
    house.add("far", queue=other, delay=FAR)
    house.clock.advance(FAR - 10)
    house.add("new", queue=other)


def abandoned_jobs(house: House) -> None:
    other = house.another()
    _claim(other, *house.add("a", "b", "c", queue=other))
    house.clock.advance(TTR)


def sweep(house: House) -> None:
    house.queue.sweep()


def contested_sweep(house: House) -> None:
    """An operator deletes a row between the look at it and its mark."""
    [*_, row] = house.queue.store.find("t", "running", None, 9)
    house.tap.meanwhile("mongo: find kqueue_jobs by put_at $or", lambda: _delete_by_another(house, row.id))
    house.queue.sweep()


# -- the operator ----------------------------------------------------------------------------------------


def things_to_clean(house: House) -> None:
    other = house.another()
    house.acts["raise"] = _refuse
    house.note("doomed", ids=house.add("raise", queue=other))
    house.serve(other).run_jobs()
    house.acts.clear()
    house.add("unwanted", "a", queue=other)
    house.add("x", "y", queue=other, type="u")
    house.add("z", queue=other, type="u", delay=30)


def operate(house: House) -> None:
    queue = house.queue
    [dead] = queue.jobs(state="dead")
    [unwanted, *_] = queue.jobs("t", state="ready", limit=1)
    _delete(house, queue, unwanted.id)
    if queue.retry_job(dead, "look again"):
        house.note("revived", ids=[dead.id])
    waiting = [job.id for state in ("ready", "delayed") for job in queue.jobs("u", state=state)]
    queue.change_job(waiting[0], priority="high")
    queue.store.hasten(waiting, queue.store.now(), None)
    house.note("unwanted", ids=waiting)
    queue.purge_jobs("u")
    house.note("deleted", ids=waiting)


def look(house: House) -> None:
    queue, store = house.queue, house.queue.store
    queue.counts()
    queue.counts("t")
    queue.get_job(queue.jobs("t", state="ready", limit=1)[0].id)
    store.states([queue.jobs("t", state="ready", limit=1)[0].id])
    store.ready_types("", 9)
    store.overview()
    store.pulse()
    store.find_due(store.now(), 1)
    store.find_abandoned(store.now(), 1)
    store.claimed_by_process("nobody's")
    queue.broker.depths(TYPES)
    queue.broker.warnings(TYPES)


# -- copies ----------------------------------------------------------------------------------------------


def back_up(house: House) -> None:
    """A copy that has its name is whole."""
    copy = house.folder / "copy.db"
    try:
        house.queue.store.backup(str(copy), replace=False)
    finally:
        _check_copy(copy)


def backed_up_jobs(house: House) -> None:
    some_jobs(house)
    other = house.another()
    other.open()
    other.backup(str(house.folder / "copy.db"))


def restore(house: House) -> None:
    """Over the store, which stays whole where that fails, and beside it where it does not."""
    for path in house.queue.store.restore(str(house.folder / "copy.db"), replace=True):
        _check_copy(Path(path))
    house.queue.open()


def become_another(house: House) -> None:
    house.queue.store.begin_anew()


def tubes_left_behind(house: House) -> None:
    some_jobs(house)
    other = house.another()
    other.open()
    other.store.begin_anew()


def empty_tubes(house: House) -> None:
    """Those that the store had before it became another."""
    broker = house.queue.broker
    for stray in broker.strays(house.clock.time() + 1):
        if stray.beginning.startswith(house.prefix):
            broker.empty(stray.beginning)


def _check_copy(path: Path) -> None:
    """It has all the jobs that were added, if it is there."""
    if path.exists() and not path.name.endswith(("-wal", "-shm")):
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM kqueue_jobs").fetchone() == (4,)


# -- limits, unique keys, ticks, records -----------------------------------------------------------------

#: Seconds. Longer than all that the repairs wait for.
AHEAD_S = 1e7
LIMIT = Limit("t", running=1, running_per_key=1, starts=9, period=60.0)


def limited_jobs(house: House) -> None:
    store = house.another().store
    rows = [*(house.row(label, limit_key="k") for label in ("a", "b", "c")), house.row("d", type="u", size=LARGE)]
    house.insert(rows, lambda: store.add(rows))


def limit(house: House) -> None:
    """Hold, look in vain, give back, admit, and take what was admitted."""
    store = house.queue.store
    first = _claim_limited(store, None)
    assert (len(first.rows), first.held) == (2, 2)
    assert store.held_types(TYPES) == ["t"]
    assert store.admit(LIMIT, None, store.now(), None, 9).dues == []
    _give_back(store, first)
    dues = store.admit(LIMIT, ["k"], store.now(), store.now(), 9).dues
    again = _claim_limited(store, tuple(due.id for due in dues))
    assert len(again.rows) == 1
    _give_back(store, again)
    assert _claim_limited(store, ("none",)) == Claim([], False, {})


def settle_and_claim(house: House) -> None:
    """Give back and claim in one; and once more, when what is given back is in hand no more."""
    store = house.queue.store
    assert isinstance(store, RunsInOneWrite)
    owners = iter(("second", "third"))
    budget = Budget(9, job_s=dict.fromkeys(TYPES, 0.0))
    first = store.claim(Selection(TYPES), budget, "first", store.now(), False)

    def give_back_first() -> tuple[Settled, Claim]:
        now = store.now()
        back = [Unget(row.id, row.fence, now, None, None, started=False) for row in first.rows]
        return store.settle_and_claim(back, Selection(TYPES), budget, next(owners), now, alone=False)

    settled, second = give_back_first()
    assert (settled, len(second.rows)) == (Settled(), len(first.rows))
    settled, third = give_back_first()
    assert (settled.lost, third.rows) == ({row.id for row in first.rows}, [])
    _give_back(store, second)


def _claim_limited(store: JobStore, ids: tuple[str, ...] | None) -> Claim:
    limits = Budget(9, job_s=dict.fromkeys(TYPES, 0.0))
    return store.claim(Selection(TYPES, ids, (LIMIT,)), limits, f"limited {ids}", store.now(), False)


def _give_back(store: JobStore, claim: Claim) -> None:
    now = store.now()
    store.settle([Unget(row.id, row.fence, now, None, None, started=False) for row in claim.rows], now)


def admit_all(queue: KQueue) -> None:
    store = queue.store
    for type in store.held_types(TYPES):
        store.admit(Limit(type), None, store.now(), None, 99)


def add_unique(house: House) -> None:
    """The second and the fourth are one too many; in between an operator deletes the job that has the key."""
    store = house.queue.store

    def add(row: Row) -> str:
        return house.insert([row], lambda: add_with_key(store, row, store.now() + 60, store.now()))

    first, second, third, fourth = (house.row(label, unique_key="k") for label in ("a", "b", "c", "d"))
    assert add(first) == add(second) == first.id
    _delete(house, house.queue, first.id)
    assert add(third) == add(fourth) == third.id
    found = house.queue.find_job("t", unique="k")
    assert found is not None
    assert found.id == third.id


def add_ticks(house: House) -> None:
    store = house.queue.store
    ticks = [
        Tick("hourly", None, 1.5),
        Tick("hourly", 1.5, 2.5),
        Tick("hourly", 1.5, 2.5),
        Tick("daily", None, 1.5),
    ]
    for number, tick in enumerate(ticks):
        rows = [house.row(f"tick {number}")] if tick.schedule == "hourly" else []
        house.insert(rows, partial(store.add_tick, tick, rows))
    assert store.last_ticks() == {"hourly": 2.5, "daily": 1.5}


def keep_records(house: House) -> None:
    store, now = house.queue.store, house.queue.store.now()
    assert store.pause("x", now)
    assert store.paused() == {"x": now}
    assert not store.resume(ALL_TYPES)
    assert store.resume("x")
    worker = WorkerRecord("w", "host", 1, ("t",), now, now)
    store.see_worker(worker)
    assert store.workers() == [worker]
    store.forget_worker("w")
    store.keep_sweep_position("t")
    assert store.sweep_position() == "t"
    store.keep_sweep_position("")
    [row] = store.find("t", "ready", None, 1)
    assert store.ahead(row, 9) == 0
    assert len(store.overview()) == len(TYPES)


def things_to_forget(house: House) -> None:
    """A done row, a unique key that is not taken, the start of a limited claim and a worker; all long ago."""
    store, now = house.another().store, house.clock.time()
    row = house.row("a", unique_key="k")
    house.insert([row], lambda: add_with_key(store, row, now, now))
    [claimed] = _claim_limited(store, (row.id,)).rows
    house.note("ends", id=row.id, fence=claimed.fence)
    store.settle([Finish(row.id, claimed.fence, now + 9)], now)
    store.see_worker(WorkerRecord("w", "host", 1, ("t",), now, now))
    house.clock.advance(100_000)


def forget(house: House) -> None:
    """One at a time: a look at unique keys goes on where the last one ended."""
    _forget(house.queue, limit=1)
    _forget(house.queue)


def jobs_to_keep(house: House) -> None:
    house.add("kept a", "kept b", queue=house.another(), keep_done=9)


def finish_with_results(house: House) -> None:
    def act(job: JobInHand) -> None:
        house.note("ends", id=job.id, fence=job.fence)
        job.delete(result={"of": job.id})

    house.acts["kept"] = act
    house.queue.run_jobs()
    _check_results(house.queue)
    house.queue.ends(after=house.queue.ends(limit=1).place)


def jobs_that_tell(house: House) -> None:
    house.add("tell a", "tell b", "retry c", queue=house.another())


def tell(house: House) -> None:
    """Beside the ends of runs, and with one that leaves its job."""

    def act(job: JobInHand) -> None:
        job.progress(1, 2, "half")
        job.log("of %s", job.id)
        house.queue.parts.registry.in_hand()[0].reports.write()
        assert {line.text for line in house.queue.job_log(job.id)} <= {f"of {job.id}"}
        house.end(job)

    def again(job: JobInHand) -> None:
        job.log("again")
        job.retry("again", delay=0)

    house.acts |= {"tell": act, "retry": _at_first(house, again)}
    house.queue.run_jobs()


def _check_results(queue: KQueue) -> list[str]:
    """A result is there exactly when its end is. But where another has run the job to its end: that gives none."""
    ids = [job.id for job in queue.jobs("t", state="done")]
    jobs = [queue.get_job(id) for id in ids]
    assert all(job is None or job.result in ({"of": job.id}, None) for job in jobs)
    return ids


def forget_results(queue: KQueue) -> None:
    """What is done is not left behind."""
    if _check_results(queue):
        queue.store.expire(queue.store.now() + 99, 99)


def written_ahead(house: House) -> None:
    """By a clock that was ahead: jobs that wait in each way, one that runs, a unique key, a counted start,
    a pause and a worker.
    """
    other = house.another()
    store = other.store
    house.clock.jump(AHEAD_S)
    now = store.now()
    house.add("a", queue=other)
    house.add("delayed", queue=other, delay=30)
    _claim(other, *house.add("running", queue=other))
    rows = [house.row("no pointer", type="u"), house.row("limited")]
    house.insert(rows, partial(store.add, rows))
    _give_back(store, _claim_limited(store, (rows[1].id,)))
    row = house.row("unique", type="u", unique_key="k")
    house.insert([row], partial(add_with_key, store, row, now + 60, now))
    store.pause("x", now)
    store.see_worker(WorkerRecord("w", "host", 1, ("t",), now, now))
    house.clock.jump(-AHEAD_S)


def set_times_right(house: House) -> None:
    store = house.queue.store
    now = store.now()
    wrong = [one for types in (None, TYPES) for one in store.find_misdated(types, now, 99)]
    assert {one.what for one in wrong} == {"job", "unique key", "start", "pause", "worker"}
    # After a lost reply fewer are counted.
    assert sum(store.repair_times(types, now, 99) for types in (None, TYPES)) <= len(wrong)
    assert [one for types in (None, TYPES) for one in store.find_misdated(types, now, 99)] == []
    assert store.added_ticks() == {}


def _forget(queue: KQueue, limit: int = 99) -> None:
    queue.store.expire(queue.store.now(), limit)


# -- and where a MongoDB makes other calls ---------------------------------------------------------------

#: A range of candidates, and one of those who stand at a gate.
CANDIDATES, AT_GATE = "mongo: find kqueue_jobs by state type", "mongo: find kqueue_jobs by type state gate"


def contested_limits(house: House) -> None:
    """Between what is read and what is written an operator deletes jobs, and another process takes a turn."""
    store, others = house.queue.store, house.another().store
    both = (LIMIT, Limit("u", running=9))

    def claim(by: JobStore, *, types: tuple[str, ...] = TYPES, alone: bool = False) -> Claim:
        limits = Budget(9, job_s=dict.fromkeys(TYPES, 0.0))
        return by.claim(Selection(types, None, both), limits, f"{by.now()} {types} {alone}", by.now(), alone)

    [first, second, _] = store.find("t", "ready", None, 9)
    house.tap.meanwhile(CANDIDATES, lambda: _delete_by_another(house, first.id))
    taken = claim(store, types=("t",), alone=True)
    assert taken.rows == []
    house.tap.meanwhile(AT_GATE, lambda: _delete_by_another(house, second.id))
    assert sum(len(store.admit(LIMIT, None, store.now(), None, 9).dues) for _ in range(2)) == 1
    house.tap.meanwhile(CANDIDATES, lambda: _give_back(others, claim(others, types=("u",))))
    taken = claim(store)
    assert len(taken.rows) == len(TYPES)
    _give_back(store, taken)
    taken = claim(store, types=("t",), alone=True)
    assert len(taken.rows) == 1
    _give_back(store, taken)
    limits = Budget(9, job_s=dict.fromkeys(TYPES, 0.0))
    taken = store.claim(
        Selection(("u", "t"), (first.id, *_ids(store, "u")), both[:1]), limits, "u", store.now(), False
    )
    assert len(taken.rows) == 1
    _give_back(store, taken)


def _ids(store: JobStore, type: str) -> list[str]:
    return [row.id for row in store.find(type, "ready", None, 9)]


def unique_jobs(house: House) -> None:
    store = house.another().store
    for key in ("k", "l"):
        row = house.row(key, unique_key=key)
        house.insert([row], partial(add_with_key, store, row, store.now(), store.now()))


def purge(house: House) -> None:
    """After a job was added whose key is taken by one that waits."""
    store = house.queue.store
    ids = _ids(store, "t")
    row = house.row("m", unique_key="k")
    assert house.insert([row], partial(add_with_key, store, row, store.now(), store.now())) == ids[0]
    house.note("unwanted", ids=ids)
    while store.purge("t", 1):
        pass
    house.note("deleted", ids=ids)


# -- what they share -------------------------------------------------------------------------------------


def _at_first(house: House, act: Callable[[JobInHand], object]) -> Callable[[JobInHand], None]:
    """``act`` when the job is handed out for the first time; then delete it."""

    def choose(job: JobInHand) -> None:
        if job.fence == 1:
            act(job)
        else:
            house.end(job)

    return choose


def _refuse(job: JobInHand) -> None:
    raise ValueError("refused")


def _interrupt(job: JobInHand) -> None:
    raise KeyboardInterrupt


def _claim(queue: KQueue, *ids: str, alone: bool = False) -> None:
    """As a process that then dies."""
    store = queue.store
    claim = store.claim(Selection(TYPES, ids), Budget(len(ids), job_s={"t": 0.0}), "".join(ids), store.now(), alone)
    assert len(claim.rows) == len(ids)


def _delete(house: House, queue: KQueue, id: str) -> None:
    house.note("unwanted", ids=[id])
    queue.delete_job(id)
    house.note("deleted", ids=[id])


def _delete_by_another(house: House, id: str) -> None:
    _delete(house, house.another(), id)


OPERATIONS = (
    Operation("make, add, close", open_add_close, opened=False, new=True),
    Operation("open, add, close", open_add_close, opened=False),
    Operation("add by the store's clock", add, only="mongod", opened=False, timed=False),
    Operation("add", add),
    Operation("add many", add_many, only="sqlite"),
    Operation("add large jobs", add_large, only="sqlite"),
    Operation("add with others", add_with_others),
    Operation("add what is there", add_again, some_jobs),
    Operation("run", run, some_jobs),
    Operation("run what falls due", run, jobs_that_fall_due),
    Operation("run one type", run, some_jobs, types=("t",)),
    Operation("run large jobs", run, large_jobs),
    Operation("run without an index", run, delayed_jobs, drop_an_index, only="mongod"),
    Operation("end in every way", end_in_every_way, jobs_of_every_end),
    Operation("run batches", run_batches, jobs_of_a_batch),
    Operation("tell", tell, jobs_that_tell),
    Operation("finish with results", finish_with_results, jobs_to_keep, repair=forget_results),
    Operation("renew", renew, some_jobs, types=("t",)),
    Operation("be interrupted", be_interrupted, jobs_to_interrupt),
    Operation("come late", come_late, jobs_to_take),
    Operation("be stolen from", be_stolen_from, jobs_to_steal),
    Operation("run stale pointers", run, stale_pointers),
    Operation("claim what others change", contest, contested_jobs, only="mongod"),
    Operation("strangers in the tubes", sweep_and_run, strangers, only="sqlite+beanstalkd"),
    Operation("wait", wait, only="sqlite+beanstalkd"),
    Operation("reserve for some types", reserve_for_some_types, some_jobs, only="sqlite+beanstalkd"),
    Operation("sweep", sweep, a_lot_to_repair),
    Operation("sweep what others change", contested_sweep, abandoned_jobs, only="mongod"),
    Operation("operate", operate, things_to_clean),
    Operation("look", look, some_jobs),
    Operation("back up", back_up, some_jobs, only="sqlite"),
    Operation("restore", restore, backed_up_jobs, only="sqlite", opened=False),
    Operation("become another store", become_another, some_jobs),
    Operation("empty the tubes of another store", empty_tubes, tubes_left_behind, only="sqlite+beanstalkd"),
    Operation("limits", limit, limited_jobs, repair=admit_all),
    Operation("settle and claim", settle_and_claim, limited_jobs, only="sqlite"),
    Operation("limits that others change", contested_limits, limited_jobs, only="mongod", repair=admit_all),
    Operation("unique", add_unique),
    Operation("purge unique jobs", purge, unique_jobs, only="mongod"),
    Operation("ticks", add_ticks),
    Operation("pauses and workers", keep_records, some_jobs),
    Operation("expire", forget, things_to_forget, repair=_forget),
    Operation("set times right", set_times_right, written_ahead),
)
