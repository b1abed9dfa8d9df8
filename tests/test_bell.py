"""A wait that another thread or a signal handler ends."""

import signal
import threading

from kqueue.bell import Bell, wait_readable
from tests.flows.processes import run_in_child

FOR_EVER_S = 60.0


def test_a_ring_before_the_wait_ends_it_until_it_is_answered() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    assert wait_readable([bell], FOR_EVER_S)
    assert bell.answer() is True
    assert bell.answer() is False
    assert not wait_readable([bell], 0)


def test_another_thread_ends_a_wait() -> None:
    bell = Bell()
    thread = threading.Timer(0.01, bell.ring)
    thread.start()
    assert wait_readable([bell, Bell()], FOR_EVER_S) == {bell.fileno()}
    thread.join()


def test_a_signal_handler_ends_a_wait() -> None:
    bell = Bell()
    before = signal.signal(signal.SIGALRM, lambda *_: bell.ring())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        while not wait_readable([bell], FOR_EVER_S):
            pass
    finally:
        signal.signal(signal.SIGALRM, before)


def test_any_number_of_rings_is_harmless_and_answered_at_once() -> None:
    bell = Bell()
    for _ in range(200_000):
        bell.ring()
    assert bell.answer() is True
    assert bell.answer() is False


def test_a_child_neither_rings_nor_answers_its_parents_bell() -> None:
    bell = Bell()
    assert run_in_child(bell.ring) == 0
    assert bell.answer() is False
    bell.ring()

    def child() -> None:
        assert bell.answer() is False

    assert run_in_child(child) == 0
    assert bell.answer() is True
