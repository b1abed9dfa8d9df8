"""Who runs alone in a process."""

import threading
from collections.abc import Callable

import pytest

from kqueue.quarantine import Quarantine


def in_thread(work: Callable[[], object]) -> None:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert not errors


def test_a_process_with_one_loop_and_with_two() -> None:
    quarantine = Quarantine()
    with quarantine.loop():
        assert quarantine.has_one_loop()
        with quarantine.loop():
            assert not quarantine.has_one_loop()
        assert quarantine.has_one_loop()


def test_a_suspect_waits_for_other_windows_and_they_wait_for_it() -> None:
    quarantine = Quarantine()
    order: list[str] = []
    other_is_in, other_may_end = threading.Event(), threading.Event()

    def other() -> None:
        with quarantine.window():
            other_is_in.set()
            other_may_end.wait(30)
            order.append("other's first window ends")
        while True:
            quarantine.wait_until_free(lambda: False)
            with quarantine.window() as entered:
                if entered and "suspect" in order:
                    order.append("other's second window")
                    return

    thread = threading.Thread(target=other)
    thread.start()
    assert other_is_in.wait(30)
    with quarantine.window() as entered:
        assert entered
        with quarantine.aside(0) as alone:
            assert not alone
        threading.Timer(0.01, other_may_end.set).start()
        with quarantine.aside(30) as alone:
            assert alone
            order.append("suspect")
    thread.join(30)
    assert order == ["other's first window ends", "suspect", "other's second window"]


def test_while_a_suspect_is_aside_no_other_thread_gets_a_window_and_its_own_does() -> None:
    quarantine = Quarantine()
    seen: list[bool] = []

    def other() -> None:
        seen.append(quarantine.is_taken())
        quarantine.wait_until_free(lambda: True)
        with quarantine.window() as entered:
            seen.append(entered)
            with quarantine.aside(30) as alone:
                seen.append(alone)

    with quarantine.window(), quarantine.aside(0) as alone:
        assert alone
        in_thread(other)
        assert not quarantine.is_taken()
        with quarantine.window() as entered:  # its handler runs a loop of its own
            assert entered
    assert seen == [True, False, False]


def test_a_refused_suspect_is_tried_again_later_each_time() -> None:
    quarantine = Quarantine()
    waits = []
    with quarantine.window(), quarantine.window():
        for _ in range(4):
            with quarantine.aside(0) as alone:
                assert not alone
            waits.append(quarantine.again_in())
    assert waits == [1, 2, 4, 8]
    with quarantine.window(), quarantine.aside(0) as alone:
        assert alone
    assert quarantine.again_in() == 1


def test_whatever_is_raised_frees_the_others() -> None:
    quarantine = Quarantine()
    with pytest.raises(KeyboardInterrupt), quarantine.loop(), quarantine.window(), quarantine.aside(1):
        raise KeyboardInterrupt
    with quarantine.loop(), quarantine.window() as entered:
        assert entered
        assert quarantine.has_one_loop()
        with quarantine.aside(0) as alone:
            assert alone
