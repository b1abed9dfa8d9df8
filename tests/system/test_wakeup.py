"""A wait that another thread or a signal handler ends."""

import signal
import threading

from kqueue.system.wakeup import Wakeup, wait_readable
from tests.flows.processes import run_in_child

FOR_EVER_S = 60.0


def test_a_ring_before_the_wait_ends_it_until_it_is_answered() -> None:
    wakeup = Wakeup()
    wakeup.ring()
    wakeup.ring()
    assert wait_readable([wakeup], FOR_EVER_S)
    assert wakeup.answer() is True
    assert wakeup.answer() is False
    assert not wait_readable([wakeup], 0)


def test_another_thread_ends_a_wait() -> None:
    wakeup = Wakeup()
    thread = threading.Timer(0.01, wakeup.ring)
    thread.start()
    assert wait_readable([wakeup, Wakeup()], FOR_EVER_S) == {wakeup.fileno()}
    thread.join()


def test_a_signal_handler_ends_a_wait() -> None:
    wakeup = Wakeup()
    before = signal.signal(signal.SIGALRM, lambda *_: wakeup.ring())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        while not wait_readable([wakeup], FOR_EVER_S):
            pass
    finally:
        signal.signal(signal.SIGALRM, before)


def test_any_number_of_rings_is_harmless_and_answered_at_once() -> None:
    wakeup = Wakeup()
    for _ in range(200_000):
        wakeup.ring()
    assert wakeup.answer() is True
    assert wakeup.answer() is False


def test_a_child_neither_rings_nor_answers_its_parents_wakeup() -> None:
    wakeup = Wakeup()
    assert run_in_child(wakeup.ring) == 0
    assert wakeup.answer() is False
    wakeup.ring()

    def child() -> None:
        assert wakeup.answer() is False

    assert run_in_child(child) == 0
    assert wakeup.answer() is True
