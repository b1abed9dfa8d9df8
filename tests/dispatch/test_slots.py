"""How many loops of a process may run a type."""

import threading
from collections.abc import Mapping

from kqueue.dispatch.slots import ServedHandlers, Slots
from kqueue.model.handlers import Handler


def nothing(job: object) -> None:
    pass


class Loops:
    """Of one process."""

    def __init__(self, **handlers: Handler) -> None:
        self.slots = Slots()
        self.handlers: Mapping[str, Handler] = handlers
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def loop(self, most: int = 1) -> ServedHandlers:
        return ServedHandlers(self.slots, lambda: self.handlers, self.wake, most)


def test_a_bounded_type_is_served_by_as_many_loops_as_may_run_it() -> None:
    loops = Loops(few=Handler(nothing, concurrency=2), many=Handler(nothing))
    first, second, third = loops.loop(), loops.loop(), loops.loop()
    assert [sorted(one()) for one in (first, second, third)] == [["few", "many"], ["few", "many"], ["many"]]
    assert third() is third()
    first.close()
    first.close()
    assert loops.woken == 1
    assert sorted(third()) == ["few", "many"]


def test_a_loop_of_many_threads_takes_as_many_slots_as_it_can_use_and_what_gets_free_later() -> None:
    loops = Loops(few=Handler(nothing, concurrency=5))
    first, second = loops.loop(3), loops.loop(4)
    assert (first.number("few"), second.number("few")) == (3, 2)
    first.close()
    assert second.number("few") == 4
    loops.handlers = {"few": Handler(nothing, concurrency=1)}
    assert second.number("few") == 1
    loops.handlers = {"many": Handler(nothing)}
    assert (sorted(second()), second.number("few")) == (["many"], 4)


def test_coroutine_functions_have_places_of_their_own() -> None:
    loops = Loops(c=Handler(nothing, is_async=True, concurrency=1))
    assert [sorted(loops.loop()()) for _ in range(3)] == [["c"]] * 3


def test_of_those_that_ask_at_once_no_more_get_one_than_there_are() -> None:
    slots, got = Slots(), list[object]()
    begin = threading.Barrier(8)

    def take() -> None:
        begin.wait()
        for _ in range(200):
            slot = slots.take("t", 3)
            if slot is not None:
                got.append(slot)
                assert len(got) <= 3
                got.remove(slot)
                slots.give_back("t", slot)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert [slots.take("t", 3) is None for _ in range(4)] == [False] * 3 + [True]
