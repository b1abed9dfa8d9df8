"""What a process tells of itself: nothing before it has stayed for a second, then a word every five seconds."""

from kqueue.contracts.workers import ALIVE_S, TELL_S, is_alive
from kqueue.stores.memory.store import MemoryStore
from kqueue.system.clock import ManualClock
from kqueue.upkeep.heartbeat import FIRST_S, Heartbeat, worker_of


def test_who_is_gone_within_a_second_writes_nothing() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    heartbeat = Heartbeat(store=store, id="0" * 28, types=lambda: ["t"], note=lambda: {}, monotonic=clock.monotonic)
    heartbeat.arrive()
    assert heartbeat.seconds_to_tell() == FIRST_S
    heartbeat.leave()
    assert store.pulse() == 0
    assert store.workers() == []


def test_it_tells_every_few_seconds_and_that_it_leaves() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    heartbeat = Heartbeat(
        store=store, id="0" * 28, types=lambda: ["b", "c"], note=lambda: {"loops": 2}, monotonic=clock.monotonic
    )
    heartbeat.arrive()
    clock.advance(FIRST_S)
    assert heartbeat.seconds_to_tell() == 0
    heartbeat.tell()
    [first] = store.workers()
    assert (first.types, first.note, first.started_at) == (("b", "c"), '{"loops": 2}', clock.time())
    assert heartbeat.seconds_to_tell() == TELL_S
    clock.advance(TELL_S)
    heartbeat.tell()
    [second] = store.workers()
    assert (second.started_at, second.seen_at) == (first.started_at, first.seen_at + TELL_S)
    heartbeat.leave()
    assert store.workers() == []


def test_who_was_not_heard_of_for_three_words_is_not_alive() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    Heartbeat(store=store, id="0" * 28, types=list, note=dict, monotonic=clock.monotonic).tell()
    [record] = store.workers()
    assert is_alive(record, clock.time() + ALIVE_S - 1)
    assert not is_alive(record, clock.time() + ALIVE_S)
    worker = worker_of(record, clock.time() + ALIVE_S)
    assert (worker.silent_s, worker.alive) == (ALIVE_S, False)
