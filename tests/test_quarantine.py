"""Who runs alone in a process."""

import threading

from kqueue.quarantine import Quarantine


def never() -> bool:
    return False


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
        with quarantine.window(never):
            other_is_in.set()
            other_may_end.wait(30)
            order.append("other's first window ends")
        with quarantine.window(never):
            order.append("other's second window")

    thread = threading.Thread(target=other)
    thread.start()
    assert other_is_in.wait(30)
    with quarantine.window(never) as entered:
        assert entered
        with quarantine.aside(0) as alone:
            assert not alone
        assert not quarantine.is_taken()
        threading.Timer(0.01, other_may_end.set).start()
        with quarantine.aside(30) as alone:
            assert alone
            assert quarantine.is_taken()
            order.append("suspect")
    thread.join(30)
    assert order == ["other's first window ends", "suspect", "other's second window"]


def test_two_suspects_do_not_wait_for_each_other() -> None:
    quarantine = Quarantine()
    with quarantine.window(never), quarantine.aside(0) as first:
        assert first
        answers: list[bool] = []

        def second() -> None:
            with quarantine.window(lambda: True) as entered:
                answers.append(entered)
            with quarantine.aside(30) as alone:
                answers.append(alone)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join(30)
        assert answers == [False, False]
    assert not quarantine.is_taken()


def test_a_suspect_that_raises_frees_the_others() -> None:
    quarantine = Quarantine()
    try:
        with quarantine.window(never), quarantine.aside(1):
            raise RuntimeError
    except RuntimeError:
        pass
    with quarantine.window(never) as entered:
        assert entered
