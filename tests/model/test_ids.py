"""Job ids."""

import os
import threading
import time

import pytest

from kqueue.model.ids import host_tag, is_job_id, origin
from kqueue.system.mint import IdMint


def test_ids_ascend_and_never_meet_in_one_process() -> None:
    mint = IdMint()
    made = [id for count in (1, 5, 1000, 1) for id in mint.make(count)]
    assert made == sorted(made)
    assert len(set(made)) == 1007


def test_an_id_tells_when_and_where_it_was_made() -> None:
    before = time.time()
    (id,) = IdMint().make(1)
    when, host, pid = origin(id)
    assert before - 0.001 <= when <= time.time()
    assert host == host_tag()
    assert pid == os.getpid()


def test_threads_share_a_mint() -> None:
    mint, made = IdMint(), []
    threads = [threading.Thread(target=lambda: made.extend(mint.make(500))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 4000


def test_a_forked_child_makes_ids_of_its_own() -> None:
    mint = IdMint()
    mint.make(1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, "".join(mint.make(100)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    made = [text[n : n + 28] for n in range(0, 2800, 28)]
    assert len({*made, *mint.make(100)}) == 200
    assert {origin(id).pid for id in made} == {child}


def test_more_ids_than_a_millisecond_holds_use_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kqueue.system.mint._PER_MS", 10)
    made = IdMint().make(35)
    assert made == sorted(set(made))


def test_a_clock_that_goes_back_makes_no_id_twice() -> None:
    now = [time.time_ns()]
    mint = IdMint(lambda: now[0])
    first = mint.make(3)
    now[0] = 1_000_000
    assert min(mint.make(3)) > max(first)


@pytest.mark.parametrize(
    "text",
    ["", "' OR 1=1 --", '{"$ne": 1}', "0" * 27, "0" * 29, "w" * 28, "0" * 27 + "\n", "٠" * 28, 7, None, b"0" * 28],
)
def test_what_is_no_id_is_refused(text: object) -> None:
    assert not is_job_id(text)
    with pytest.raises(ValueError, match="id: expected 28 characters"):
        origin(text)  # type: ignore[arg-type]
