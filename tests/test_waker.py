"""A sleep that can be ended."""

import signal
import threading

from kqueue.waker import Waker


def test_a_wake_before_the_sleep_ends_it_and_only_it() -> None:
    waker = Waker()
    waker.wake()
    waker.wake()
    assert waker.sleep(60) is True
    assert waker.sleep(0) is False
    waker.close()


def test_another_thread_ends_a_sleep() -> None:
    waker = Waker()
    thread = threading.Timer(0.01, waker.wake)
    thread.start()
    assert waker.sleep(60) is True
    thread.join()
    waker.close()


def test_a_signal_handler_ends_a_sleep() -> None:
    waker = Waker()
    before = signal.signal(signal.SIGALRM, lambda *_: waker.wake())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert waker.sleep(60) is True
    finally:
        signal.signal(signal.SIGALRM, before)
        waker.close()


def test_any_number_of_wakes_and_wakes_after_the_end_are_harmless() -> None:
    waker = Waker()
    for _ in range(200_000):
        waker.wake()
    assert waker.sleep(0) is True
    waker.close()
    waker.close()
    waker.wake()
