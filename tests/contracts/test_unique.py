"""Unique keys: one job of a type and key at a time. Over every store that has transactions."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kqueue.contracts.admission import Limit
from kqueue.contracts.settlements import Delete, Die, Finish, Unget
from kqueue.model.errors import AddFailed
from kqueue.model.job import State
from tests.contracts.rows import NOW, add, claim, delayed, ids, read, row
from tests.contracts.stores import STORES

KEY = "user:42"
#: ``until`` of an add that asks for no time: the key is taken while its job waits or runs.
NO_TIME = NOW


@pytest.fixture(params=[name for name, kind in STORES.items() if kind.transactions])
def make_store(request):
    return STORES[request.param].make(request)


def keyed(**fields):
    return row(**{"unique_key": KEY, **fields})


def add_unique(store, job, until=NO_TIME, now=NOW):
    return store.add_unique(job, until, now)


def is_free(store, now=NOW, **fields):
    """Whether a second add would be taken, asked by one that is deleted at once."""
    job = keyed(**fields)
    added = add_unique(store, job, now=now) == job.id
    assert bool(store.get([job.id])) is added
    store.delete([job.id])
    return added


def test_the_first_is_added_as_it_was_given_and_the_second_gets_its_id(store, other):
    first, second = keyed(limit_key="k", payload=b"\x00\xff", encoding="bytes"), keyed()
    assert add_unique(store, first) == first.id
    assert add_unique(other, second) == first.id
    assert store.get([first.id, second.id]) == [first]
    assert ids(claim(store).rows) == [first.id]


def test_other_keys_and_other_types_are_free(store):
    add_unique(store, keyed())
    for job in (keyed(unique_key="user:43"), keyed(type="x"), keyed(unique_key="")):
        assert add_unique(store, job) == job.id
        assert add_unique(store, job._replace(id=row().id)) == job.id


@pytest.mark.parametrize("key", ["", "a b", "☃", "x" * 200, "'\"\\", "%", "A", "a"])
def test_a_key_may_be_any_text_and_is_compared_exactly(store, key):
    first = keyed(unique_key=key)
    assert add_unique(store, first) == first.id
    assert read(store, first.id).unique_key == key
    assert is_free(store, unique_key=key + " ")
    assert is_free(store, unique_key=key.swapcase()) is (key.swapcase() != key)
    assert not is_free(store, unique_key=key)


def test_a_plain_add_takes_no_key(store):
    add(store, keyed(), keyed())
    assert is_free(store)


# -- while it waits or runs ------------------------------------------------------------------------------


def test_it_is_taken_while_its_job_is_delayed_ready_held_or_running(store):
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
def test_it_is_free_once_its_job_has_ended(store, ending):
    job = keyed()
    add_unique(store, job)
    claim(store, job.id, alone=True)
    if ending == "recover":
        assert store.recover(NOW + 99, 1, 10).dead == 1
    else:
        last = {"delete": Delete(job.id, 1), "finish": Finish(job.id, 1, NOW + 999), "die": Die(job.id, 1, "x")}
        store.settle([last[ending]], NOW)
    second = keyed()
    assert add_unique(store, second) == second.id
    assert not is_free(store)
    assert ids(store.get([second.id])) == [second.id]


def test_a_dead_job_that_is_revived_has_its_key_again_unless_another_took_it(store):
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
def test_it_is_taken_for_its_time_whatever_became_of_the_job(store, ending):
    job = keyed()
    add_unique(store, job, until=NOW + 60)
    claim(store, job.id)
    last = {"delete": Delete(job.id, 1), "finish": Finish(job.id, 1, NOW + 999), "die": Die(job.id, 1, "x")}
    store.settle([last[ending]] if ending else [], NOW)
    assert add_unique(store, keyed(), now=NOW + 59.9, until=NOW + 200) == job.id
    assert is_free(store, now=NOW + 60) is (ending is not None)


def test_the_time_is_that_of_the_add_that_took_it(store):
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


def test_delete_frees_it_whatever_its_time(store, other):
    for state in ("waiting", "running", "finished"):
        job = keyed()
        assert add_unique(store, job, until=NOW + 60) == job.id, state
        if state != "waiting":
            claim(store, job.id)
        if state == "finished":
            store.settle([Delete(job.id, 1)], NOW)
        assert other.delete([job.id]) == (0 if state == "finished" else 1)


def test_to_delete_one_job_frees_no_others_key(store):
    first, second = keyed(), keyed()
    add_unique(store, first)
    claim(store, first.id)
    store.settle([Die(first.id, 1, "enough")], NOW)
    add_unique(store, second)
    assert store.delete([first.id]) == 1
    assert not is_free(store)


def test_purge_frees_the_keys_of_its_type_that_no_job_has_any_more(store):
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


def test_a_purge_frees_the_keys_of_the_jobs_that_it_deletes(store):
    jobs = [keyed(unique_key=str(number)) for number in range(3)]
    for job in jobs:
        add_unique(store, job, until=NOW + 60)
    assert store.purge("t", 2) == 2
    left = ids(store.get(ids(jobs)))
    assert [is_free(store, unique_key=job.unique_key) for job in jobs] == [job.id not in left for job in jobs]


def test_expire_frees_nothing_that_is_taken(store):
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


def test_a_dead_job_that_is_brought_back_has_its_key_again_also_after_a_sweep(store):
    first, second = keyed(), keyed()
    add_unique(store, first, until=NOW + 60)
    claim(store, first.id)
    store.settle([Die(first.id, 1, "enough")], NOW)
    store.expire(NOW + 100, 100)
    store.revive([first.id], "mended", NOW + 100, None)
    assert add_unique(store, second, now=NOW + 101) == first.id


def test_keys_go_as_fast_as_they_come(store):
    for number in range(30):
        job = keyed(unique_key=str(number))
        add_unique(store, job, until=NOW + 60)
        claim(store, job.id)
        store.settle([Delete(job.id, 1)], NOW)
    for _ in range(3):  # sweeps, each of a lot that is much smaller
        store.expire(NOW + 60, 4)
    assert all(is_free(store, now=NOW, unique_key=str(number)) for number in range(30))


# -- errors ----------------------------------------------------------------------------------------------


def test_an_id_that_is_there_already_is_not_taken_and_takes_no_key(store):
    (there,) = add(store, row())
    with pytest.raises(AddFailed) as failed:
        add_unique(store, keyed(id=there))
    assert failed.value.not_taken == (there,)
    assert failed.value.taken == failed.value.unknown == ()
    assert is_free(store)


def test_a_store_that_is_not_there_names_the_job_as_not_taken(absent_store):
    job = keyed()
    with pytest.raises(AddFailed) as failed:
        add_unique(absent_store, job)
    assert failed.value.not_taken == (job.id,)
    assert absent_store.address in str(failed.value)


# -- many at once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [NO_TIME, NOW + 60])
def test_of_many_threads_that_add_the_same_key_one_adds(make_atomic_store, until):
    stores = [make_atomic_store() for _ in range(6)]
    barrier = threading.Barrier(len(stores))

    def work(store):
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


def test_of_many_threads_that_add_a_key_that_is_free_again_one_adds(make_atomic_store):
    stores = [make_atomic_store() for _ in range(4)]
    barrier = threading.Barrier(len(stores))

    def work(store):
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


def test_a_delayed_unique_job_runs_as_others(store):
    job = delayed(NOW + 9, unique_key=KEY)
    add_unique(store, job)
    assert claim(store, job.id).later == {job.id: NOW + 9}
    assert ids(claim(store, job.id, now=NOW + 9).rows) == [job.id]
