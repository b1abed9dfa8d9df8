"""Who runs alone in a process."""

import threading
from collections.abc import Callable

import pytest

from kqueue.loops.isolation import CROWDED_S, YIELD_S, Isolation
from kqueue.system.clock import ManualClock, SystemClock


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
    isolation = Isolation(SystemClock())
    with isolation.loop():
        assert isolation.has_one_loop()
        with isolation.loop():
            assert not isolation.has_one_loop()
        assert isolation.has_one_loop()


def test_a_suspect_waits_for_other_windows_and_they_wait_for_it() -> None:
    isolation = Isolation(SystemClock())
    order: list[str] = []
    other_is_in, other_may_end = threading.Event(), threading.Event()

    def other() -> None:
        with isolation.window():
            other_is_in.set()
            other_may_end.wait(30)
            order.append("other's first window ends")
        while True:
            isolation.wait_until_free(lambda: False)
            with isolation.window() as entered:
                if entered and "suspect" in order:
                    order.append("other's second window")
                    return

    thread = threading.Thread(target=other)
    thread.start()
    assert other_is_in.wait(30)
    with isolation.window() as entered:
        assert entered
        with isolation.aside(0) as alone:
            assert not alone
        threading.Timer(0.01, other_may_end.set).start()
        with isolation.aside(30) as alone:
            assert alone
            order.append("suspect")
    thread.join(30)
    assert order == ["other's first window ends", "suspect", "other's second window"]


def test_while_a_suspect_is_aside_no_other_thread_gets_a_window_and_its_own_does() -> None:
    isolation = Isolation(SystemClock())
    seen: list[bool] = []

    def other() -> None:
        seen.append(isolation.is_taken())
        isolation.wait_until_free(lambda: True)
        with isolation.window() as entered:
            seen.append(entered)
            with isolation.aside(30) as alone:
                seen.append(alone)

    with isolation.window(), isolation.aside(0) as alone:
        assert alone
        in_thread(other)
        assert not isolation.is_taken()
        with isolation.window() as entered:  # its handler runs a loop of its own
            assert entered
    assert seen == [True, False, False]


def test_a_refused_suspect_is_tried_again_later_each_time() -> None:
    isolation = Isolation(SystemClock())
    waits = []
    with isolation.window(), isolation.window():
        for _ in range(4):
            with isolation.aside(0) as alone:
                assert not alone
            waits.append(isolation.again_in())
    assert waits == [1, 2, 4, 8]
    with isolation.window(), isolation.aside(0) as alone:
        assert alone
    assert isolation.again_in() == 1


def test_whatever_is_raised_frees_the_others() -> None:
    isolation = Isolation(SystemClock())
    with pytest.raises(KeyboardInterrupt), isolation.loop(), isolation.window(), isolation.aside(1):
        raise KeyboardInterrupt
    with isolation.loop(), isolation.window() as entered:
        assert entered
        assert isolation.has_one_loop()
        with isolation.aside(0) as alone:
            assert alone


def test_a_process_is_crowded_where_a_wait_takes_long_or_is_in_vain_again_and_again() -> None:
    clock = ManualClock()
    isolation = Isolation(clock)
    assert not isolation.is_crowded()
    with isolation.waiting():
        clock.advance(CROWDED_S - 0.1)
        assert not isolation.is_crowded()
        with isolation.waiting():  # of another thread
            clock.advance(0.1)
            assert isolation.is_crowded()
        assert isolation.is_crowded()
    assert not isolation.is_crowded()
    with isolation.window(), isolation.aside(0.0) as alone:
        assert alone
        clock.advance(CROWDED_S)
        assert isolation.is_crowded(), "others wait for it"
    assert not isolation.is_crowded()
    with isolation.window(), isolation.window():
        for crowded in (False, True):
            with isolation.aside(0.0) as alone:
                assert not alone
            assert isolation.is_crowded() == crowded
    with isolation.window(), isolation.aside(0.0):
        assert not isolation.is_crowded()


def test_in_a_new_process_of_a_worker_suspects_let_others_go_first() -> None:
    clock = ManualClock()
    isolation = Isolation(clock)
    with isolation.loop():
        assert not isolation.must_yield(), "others would have to run it again"
    isolation.yields = True
    clock.advance(YIELD_S)
    with isolation.loop():
        assert not isolation.must_yield()
    isolation = Isolation(clock)
    isolation.yields = True
    with isolation.loop():
        assert isolation.must_yield()
        clock.advance(YIELD_S)
        assert not isolation.must_yield()
