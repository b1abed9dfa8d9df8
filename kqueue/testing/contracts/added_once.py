"""What is added once: unique keys, one job of a type and key at a time; and ticks of schedules, with their jobs.
It needs transactions.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kqueue.contracts.admission import Limit
from kqueue.contracts.intake import Tick
from kqueue.contracts.settlements import Delete, Die, Finish, Settlement, Unget
from kqueue.contracts.store import JobStore
from kqueue.model.errors import AddFailed
from kqueue.model.job import Row, State
from kqueue.testing.contracts.rows import NOW, MakeStore, add, add_unique, claim, delayed, ids, read, row

KEY = "user:42"


def keyed(**fields: Any) -> Row:
    return row(**{"unique_key": KEY, **fields})


def is_free(store: JobStore, now: float = NOW, **fields: Any) -> bool:
    """Whether a second add would be taken, asked by one that is deleted at once."""
    job = keyed(**fields)
    added = add_unique(store, job, now=now) == job.id
    assert bool(store.get([job.id])) is added
    store.delete([job.id])
    return added


def test_the_first_is_added_as_it_was_given_and_the_second_gets_its_id(store: JobStore, other: JobStore) -> None:
    first, second = keyed(limit_key="k", payload=b"\x00\xff", encoding="bytes"), keyed()
    assert add_unique(store, first) == first.id
    assert add_unique(other, second) == first.id
    assert store.get([first.id, second.id]) == [first]
    assert ids(claim(store).rows) == [first.id]


def test_other_keys_and_other_types_are_free(store: JobStore) -> None:
    add_unique(store, keyed())
    for job in (keyed(unique_key="user:43"), keyed(type="x"), keyed(unique_key="")):
        assert add_unique(store, job) == job.id
        assert add_unique(store, job._replace(id=row().id)) == job.id


@pytest.mark.parametrize("key", ["", "a b", "☃", "x" * 200, "'\"\\", "%", "A", "a"])
def test_a_key_may_be_any_text_and_is_compared_exactly(store: JobStore, key: str) -> None:
    first = keyed(unique_key=key)
    assert add_unique(store, first) == first.id
    assert read(store, first.id).unique_key == key
    assert is_free(store, unique_key=key + " ")
    assert is_free(store, unique_key=key.swapcase()) is (key.swapcase() != key)
    assert not is_free(store, unique_key=key)


def test_the_job_that_took_a_key_last_is_found_while_it_is_there(store: JobStore, other: JobStore) -> None:
    assert store.find_unique("t", KEY) is None
    job, plain = keyed(limit_key="k", payload=b"x" * 5000), row()
    add_unique(store, job, until=NOW + 60)
    add(store, plain)
    assert other.find_unique("t", KEY) == job
    assert other.find_unique("x", KEY) is other.find_unique("t", "user:4") is None
    (held,) = claim(store, job.id).rows
    assert other.find_unique("t", KEY) == held
    store.settle([Die(job.id, 1, "enough")], NOW)
    assert other.find_unique("t", KEY) == read(store, job.id)
    second = keyed()
    add_unique(store, second, now=NOW + 61)
    assert other.find_unique("t", KEY) == second
    store.delete([second.id])
    assert other.find_unique("t", KEY) is None


def test_of_a_list_those_are_added_whose_keys_are_free_or_that_have_none(store: JobStore, other: JobStore) -> None:
    first = keyed(unique_key="taken")
    add_unique(store, first)
    plain, taken, free, timed, last = rows = [
        row(payload=b"1"), keyed(unique_key="taken"), keyed(unique_key="free"), keyed(unique_key="timed"), row(),
    ]  # fmt: skip
    until = {taken.id: NOW + 9, free.id: NOW, timed.id: NOW + 60}
    assert store.add_unique(rows, until, NOW) == [plain.id, first.id, free.id, timed.id, last.id]
    assert other.get(ids(rows)) == [plain, free, timed, last]
    assert ids(claim(store).rows) == [first.id, plain.id, free.id, timed.id, last.id]
    store.settle([Delete(free.id, 1), Delete(timed.id, 1)], NOW)
    again = [keyed(unique_key="free"), keyed(unique_key="timed")]
    assert store.add_unique(again, dict.fromkeys(ids(again), NOW), NOW) == [again[0].id, timed.id]


def test_of_a_list_none_is_added_if_one_cannot_be(store: JobStore) -> None:
    (there,) = add(store, row())
    rows = [keyed(unique_key="a"), row(id=there), keyed(unique_key="b")]
    with pytest.raises(AddFailed) as failed:
        store.add_unique(rows, dict.fromkeys(ids(rows), NOW), NOW)
    assert set(failed.value.not_taken) == set(ids(rows))
    assert is_free(store, unique_key="a")
    assert is_free(store, unique_key="b")


def test_a_plain_add_takes_no_key(store: JobStore) -> None:
    add(store, keyed(), keyed())
    assert is_free(store)


# -- while it waits or runs ------------------------------------------------------------------------------


def test_it_is_taken_while_its_job_is_delayed_ready_held_or_running(store: JobStore) -> None:
    job = keyed(state=State.DELAYED, run_at=NOW + 9)
    add_unique(store, job)
    assert not is_free(store)
    store.promote(NOW + 9, 10)
    assert read(store, job.id).state == "ready"
    assert not is_free(store)
    limit = (Limit("t", running=0),)
    assert claim(store, job.id, limits=limit).held == 1
    assert not is_free(store)
    store.admit(limit[0]._replace(running=1), None, NOW, NOW, 1)
    (held,) = claim(store, job.id).rows
    assert not is_free(store)
    store.settle([Unget(held.id, 1, NOW + 99, None, None, started=False)], NOW)
    assert not is_free(store)
    store.promote(NOW + 99, 10)
    claim(store, job.id, now=NOW + 99)
    store.recover(NOW + 999, 3, 10)
    assert not is_free(store, now=NOW + 999)


@pytest.mark.parametrize("ending", ["delete", "finish", "die", "recover"])
def test_it_is_free_once_its_job_has_ended(store: JobStore, ending: str | None) -> None:
    job = keyed()
    add_unique(store, job)
    claim(store, job.id, alone=True)
    if ending == "recover":
        assert store.recover(NOW + 99, 1, 10).dead == 1
    else:
        last: dict[str | None, Settlement] = {
            "delete": Delete(job.id, 1),
            "finish": Finish(job.id, 1, NOW + 999),
            "die": Die(job.id, 1, "x"),
        }
        store.settle([last[ending]], NOW)
    second = keyed()
    assert add_unique(store, second) == second.id
    assert not is_free(store)
    assert ids(store.get([second.id])) == [second.id]


def test_a_dead_job_that_is_revived_has_its_key_again_unless_another_took_it(store: JobStore) -> None:
    job = keyed()
    add_unique(store, job)
    claim(store, job.id)
    store.settle([Die(job.id, 1, "enough")], NOW)
    store.revive([job.id], "once more", NOW, NOW)
    assert add_unique(store, keyed()) == job.id
    claim(store, job.id)
    store.settle([Die(job.id, 2, "enough")], NOW)
    second = keyed()
    add_unique(store, second)
    store.revive([job.id], "once more", NOW, NOW)
    assert add_unique(store, keyed()) == second.id


# -- for a time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["delete", "finish", "die", None])
def test_it_is_taken_for_its_time_whatever_became_of_the_job(store: JobStore, ending: str | None) -> None:
    job = keyed()
    add_unique(store, job, until=NOW + 60)
    claim(store, job.id)
    last: dict[str | None, Settlement] = {
        "delete": Delete(job.id, 1),
        "finish": Finish(job.id, 1, NOW + 999),
        "die": Die(job.id, 1, "x"),
    }
    store.settle([last[ending]] if ending else [], NOW)
    assert add_unique(store, keyed(), now=NOW + 59.9, until=NOW + 200) == job.id
    assert is_free(store, now=NOW + 60) is (ending is not None)


def test_the_time_is_that_of_the_add_that_took_it(store: JobStore) -> None:
    job, second = keyed(), keyed()
    add_unique(store, job, until=NOW + 60)
    assert add_unique(store, keyed(), until=NOW + 600) == job.id
    claim(store, job.id)
    store.settle([Delete(job.id, 1)], NOW)
    assert add_unique(store, second, until=NOW + 90, now=NOW + 60) == second.id
    claim(store, second.id)
    store.settle([Delete(second.id, 1)], NOW)
    assert not is_free(store, now=NOW + 89.9)
    assert is_free(store, now=NOW + 90)


# -- delete, purge, expire -------------------------------------------------------------------------------


def test_delete_frees_it_whatever_its_time(store: JobStore, other: JobStore) -> None:
    for state in ("waiting", "running", "finished"):
        job = keyed()
        assert add_unique(store, job, until=NOW + 60) == job.id, state
        if state != "waiting":
            claim(store, job.id)
        if state == "finished":
            store.settle([Delete(job.id, 1)], NOW)
        assert other.delete([job.id]) == (0 if state == "finished" else 1)


def test_to_delete_one_job_frees_no_others_key(store: JobStore) -> None:
    first, second = keyed(), keyed()
    add_unique(store, first)
    claim(store, first.id)
    store.settle([Die(first.id, 1, "enough")], NOW)
    add_unique(store, second)
    assert store.delete([first.id]) == 1
    assert not is_free(store)


def test_purge_frees_the_keys_of_its_type_that_no_job_has_any_more(store: JobStore) -> None:
    waiting, running, finished, dead, neighbour = (
        keyed(unique_key="waiting"), keyed(unique_key="running"), keyed(unique_key="finished"),
        keyed(unique_key="dead"), keyed(type="x"),
    )  # fmt: skip
    for job in (waiting, running, finished, dead, neighbour):
        assert add_unique(store, job, until=NOW + 60) == job.id
    claim(store, running.id, finished.id, dead.id)
    store.settle([Delete(finished.id, 1), Die(dead.id, 1, "enough")], NOW)
    while store.purge("t", 1):
        pass
    taken = [key for key in ("waiting", "running", "finished", "dead") if not is_free(store, unique_key=key)]
    assert taken == ["running"]
    assert not is_free(store, type="x")


def test_a_purge_frees_the_keys_of_the_jobs_that_it_deletes(store: JobStore) -> None:
    jobs = [keyed(unique_key=str(number)) for number in range(3)]
    for job in jobs:
        add_unique(store, job, until=NOW + 60)
    assert store.purge("t", 2) == 2
    left = ids(store.get(ids(jobs)))
    assert [is_free(store, unique_key=job.unique_key) for job in jobs] == [job.id not in left for job in jobs]


def test_expire_frees_nothing_that_is_taken(store: JobStore) -> None:
    jobs = [keyed(unique_key=str(number)) for number in range(3)]
    for job in jobs:
        add_unique(store, job, until=NOW + 60)
    claim(store, *ids(jobs[1:]))
    store.settle([Delete(jobs[2].id, 1)], NOW)
    for now in (NOW, NOW + 59.9):
        store.expire(now, 100)
        assert [is_free(store, now=now, unique_key=str(number)) for number in range(3)] == [False] * 3
    store.expire(NOW + 60, 100)
    assert [is_free(store, now=NOW, unique_key=str(number)) for number in range(3)] == [False, False, True]


def test_a_dead_job_that_is_brought_back_has_its_key_again_also_after_a_sweep(store: JobStore) -> None:
    first, second = keyed(), keyed()
    add_unique(store, first, until=NOW + 60)
    claim(store, first.id)
    store.settle([Die(first.id, 1, "enough")], NOW)
    store.expire(NOW + 100, 100)
    store.revive([first.id], "mended", NOW + 100, None)
    assert add_unique(store, second, now=NOW + 101) == first.id


def test_keys_go_as_fast_as_they_come(store: JobStore) -> None:
    for number in range(30):
        job = keyed(unique_key=str(number))
        add_unique(store, job, until=NOW + 60)
        claim(store, job.id)
        store.settle([Delete(job.id, 1)], NOW)
    for _ in range(3):  # sweeps, each of a lot that is much smaller
        store.expire(NOW + 60, 4)
    assert all(is_free(store, now=NOW, unique_key=str(number)) for number in range(30))


# -- errors ----------------------------------------------------------------------------------------------


def test_an_id_that_is_there_already_is_not_taken_and_takes_no_key(store: JobStore) -> None:
    (there,) = add(store, row())
    with pytest.raises(AddFailed) as failed:
        add_unique(store, keyed(id=there))
    assert failed.value.not_taken == (there,)
    assert failed.value.taken == failed.value.unknown == ()
    assert is_free(store)


def test_a_store_that_is_not_there_names_the_job_as_not_taken(absent_store: JobStore) -> None:
    job = keyed()
    with pytest.raises(AddFailed) as failed:
        add_unique(absent_store, job)
    assert failed.value.not_taken == (job.id,)
    assert absent_store.address in str(failed.value)


# -- many at once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [NOW, NOW + 60])
def test_of_many_threads_that_add_the_same_key_one_adds(make_atomic_store: MakeStore, until: float) -> None:
    stores = [make_atomic_store() for _ in range(6)]
    barrier = threading.Barrier(len(stores))

    def work(store: JobStore) -> Any:
        seen = []
        for number in range(10):
            job = keyed(unique_key=str(number))
            barrier.wait()
            seen.append((job.id, add_unique(store, job, until)))
        return seen

    with ThreadPoolExecutor(len(stores)) as pool:
        rounds = list(zip(*pool.map(work, stores), strict=True))
    for answers in rounds:
        (winner,) = {got for _, got in answers}
        assert sum(mine == winner for mine, _ in answers) == 1
    assert stores[0].counts()["ready"] == 10


def test_of_many_threads_that_add_a_key_that_is_free_again_one_adds(make_atomic_store: MakeStore) -> None:
    stores = [make_atomic_store() for _ in range(4)]
    barrier = threading.Barrier(len(stores))

    def work(store: JobStore) -> Any:
        seen = []
        for _ in range(10):
            job = keyed()
            barrier.wait()
            seen.append(add_unique(store, job))
            barrier.wait()
            if seen[-1] == job.id:
                claim(store, job.id)
                store.settle([Delete(job.id, 1)], NOW)
        return seen

    with ThreadPoolExecutor(len(stores)) as pool:
        rounds = list(zip(*pool.map(work, stores), strict=True))
    assert [len(set(answers)) for answers in rounds] == [1] * 10
    assert len({answers[0] for answers in rounds}) == 10


def test_a_delayed_unique_job_runs_as_others(store: JobStore) -> None:
    job = delayed(NOW + 9, unique_key=KEY)
    add_unique(store, job)
    assert claim(store, job.id).later == {job.id: NOW + 9}
    assert ids(claim(store, job.id, now=NOW + 9).rows) == [job.id]


# -- ticks -----------------------------------------------------------------------------------------------

#: A time that is no whole number in binary.
FIRST = NOW + 0.1
SECOND = NOW + 60.3


def test_a_schedule_that_never_ticked_has_no_last_tick(store: JobStore) -> None:
    assert store.last_ticks() == {}


def test_a_tick_adds_its_rows_and_is_remembered(store: JobStore, other: JobStore) -> None:
    rows = [row(), delayed(NOW + 9, limit_key="k"), row(type="x", unique_key="u")]
    assert store.add_tick(Tick("hourly", None, FIRST), rows)
    assert other.last_ticks() == {"hourly": FIRST}
    assert other.get(ids(rows)) == rows


def test_what_a_schedule_has_added_is_remembered_as_its_last_tick_said(store: JobStore, other: JobStore) -> None:
    assert store.added_ticks() == {}
    store.add_tick(Tick("hourly", None, FIRST, ((FIRST, FIRST),)), [row()])
    store.add_tick(Tick("daily", None, SECOND, ()), [row()])
    assert other.added_ticks() == {"hourly": ((FIRST, FIRST),), "daily": ()}
    spans = ((NOW - 9, NOW - 5), (FIRST, SECOND))
    assert other.add_tick(Tick("hourly", FIRST, SECOND, spans), [])
    assert not store.add_tick(Tick("hourly", FIRST, SECOND, ()), [])
    assert store.added_ticks() == {"hourly": spans, "daily": ()}


def test_the_same_tick_is_added_once(store: JobStore, other: JobStore) -> None:
    assert store.add_tick(Tick("hourly", None, FIRST), [row()])
    again = row()
    assert not other.add_tick(Tick("hourly", None, FIRST), [again])
    assert other.add_tick(Tick("hourly", FIRST, SECOND), [row()])
    assert not store.add_tick(Tick("hourly", FIRST, SECOND), [again])
    assert not store.add_tick(Tick("hourly", None, SECOND + 1), [again])
    assert not store.add_tick(Tick("hourly", SECOND + 1, SECOND + 2), [again])
    assert store.get([again.id]) == []
    assert store.counts()["ready"] == 2
    assert store.last_ticks() == {"hourly": SECOND}


def test_a_tick_that_never_was_cannot_be_gone_on_from(store: JobStore) -> None:
    assert not store.add_tick(Tick("hourly", FIRST, SECOND), [row()])
    assert store.last_ticks() == {}
    assert store.counts()["ready"] == 0


def test_a_tick_may_have_no_rows(store: JobStore) -> None:
    assert store.add_tick(Tick("hourly", None, FIRST), [])
    assert store.last_ticks() == {"hourly": FIRST}
    assert not store.add_tick(Tick("hourly", None, FIRST), [])


def test_schedules_go_on_by_themselves(store: JobStore) -> None:
    assert store.add_tick(Tick("a", None, FIRST), [row()])
    assert store.add_tick(Tick("b ☃", None, SECOND), [row()])
    assert store.add_tick(Tick("a", FIRST, SECOND), [row()])
    assert store.last_ticks() == {"a": SECOND, "b ☃": SECOND}


def test_the_last_tick_outlives_its_jobs(store: JobStore, make_store: MakeStore) -> None:
    job = row()
    store.add_tick(Tick("hourly", None, FIRST), [job])
    assert store.delete([job.id]) == 1
    store.purge("t", 10)
    store.expire(NOW + 1e9, 100)
    assert store.last_ticks() == {"hourly": FIRST}
    store.close()
    assert make_store().last_ticks() == {"hourly": FIRST}


def test_a_tick_whose_rows_cannot_be_added_is_not_made(store: JobStore) -> None:
    (there,) = add(store, row())
    before = row()
    with pytest.raises(AddFailed) as failed:
        store.add_tick(Tick("hourly", None, FIRST), [before, row(id=there)])
    assert set(failed.value.not_taken) == {before.id, there}
    assert failed.value.taken == failed.value.unknown == ()
    assert store.last_ticks() == {}
    assert store.get([before.id]) == []


def test_a_store_that_is_not_there_names_every_job_as_not_taken(absent_store: JobStore) -> None:
    rows = [row(), row()]
    with pytest.raises(AddFailed) as failed:
        absent_store.add_tick(Tick("hourly", None, FIRST), rows)
    assert failed.value.not_taken == tuple(ids(rows))


def test_of_many_threads_that_add_the_same_tick_one_does(make_atomic_store: MakeStore) -> None:
    stores = [make_atomic_store() for _ in range(6)]
    barrier = threading.Barrier(len(stores))

    def work(store: JobStore) -> Any:
        won, last = [], None
        for number in range(10):
            job = row()
            barrier.wait()
            if store.add_tick(Tick("hourly", last, NOW + number), [job]):
                won.append((number, job.id))
            last = NOW + number
        return won

    with ThreadPoolExecutor(len(stores)) as pool:
        won = sorted(one for part in pool.map(work, stores) for one in part)
    assert [number for number, _ in won] == list(range(10))
    assert stores[0].counts()["ready"] == 10
    assert len(stores[0].get([id for _, id in won])) == 10
    assert stores[0].last_ticks() == {"hourly": NOW + 9}
