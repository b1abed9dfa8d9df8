"""One handle for each process."""

import os
import threading

from kqueue.system.forks import PerProcess


def test_a_process_has_one_handle() -> None:
    handles: PerProcess[object] = PerProcess(object)
    assert handles.existing() is None
    first = handles.get()
    assert handles.get() is first
    assert handles.existing() is first


def test_threads_that_come_first_at_once_get_the_same_handle() -> None:
    for _ in range(50):
        handles: PerProcess[object] = PerProcess(object)
        got: list[object] = []
        barrier = threading.Barrier(4)

        def fetch() -> None:
            barrier.wait()  # noqa: B023
            got.append(handles.get())  # noqa: B023

        threads = [threading.Thread(target=fetch) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(one) for one in got}) == 1


def test_a_child_makes_its_own_and_keeps_the_parents_alive() -> None:
    finalized: list[int] = []

    class Handle:
        def __del__(self) -> None:
            finalized.append(os.getpid())

    handles: PerProcess[Handle] = PerProcess(Handle)
    parents = id(handles.get())
    child = os.fork()
    if child == 0:
        own = handles.get()
        os._exit(0 if id(own) != parents and not finalized else 1)
    assert os.waitpid(child, 0)[1] == 0
