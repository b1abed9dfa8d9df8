"""A process that gives up what it runs, on each pair of store and broker: others take it, once."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from kqueue import AlreadySettled, JobInHand, KQueue, LeaseLost
from kqueue.worker import orphans
from tests.flows.conftest import MakeQueue
from tests.tubes import await_true


class Late:
    """A handler that goes on when its job was given up."""

    def __init__(self, act: Callable[[JobInHand], None]) -> None:
        self._act = act
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def __call__(self, job: JobInHand) -> None:
        self.has_begun.set()
        assert self.may_go_on.wait(60)
        try:
            self._act(job)
        except (AlreadySettled, LeaseLost) as error:
            self.error = error


ACTS = {
    "delete": JobInHand.delete,
    "retry": lambda job: job.retry("late"),
    "unget": JobInHand.unget,
    "renew": JobInHand.renew,
}


@pytest.mark.parametrize("act", ACTS)
def test_a_job_that_was_given_up_is_another_holders_and_its_late_handler_changes_nothing(
    make_queue: MakeQueue, act: str
) -> None:
    queue, other = make_queue(), make_queue()
    late = Late(ACTS[act])
    queue.add_handler("t", late)
    (id,) = queue.add_jobs("t", ["payload"], ttr=600)
    loop = threading.Thread(target=queue.run_jobs, kwargs={"count_limit": 1}, daemon=True)
    loop.start()
    assert late.has_begun.wait(60)
    queue.stop()
    queue.registry.give_up()
    seen = []

    def take_over(job: JobInHand) -> None:
        late.may_go_on.set()
        loop.join(60)
        assert not loop.is_alive()
        (row,) = other.store.get([id])
        seen.append((row.state, row.fence, job.fence, job.tries))
        job.delete()

    other.add_handler("t", take_over)
    assert other.run_jobs().deleted == 1
    assert isinstance(late.error, AlreadySettled)
    assert seen == [("running", 2, 2, 1)]


def test_what_has_ended_in_the_window_stays_ended_and_what_has_not_started_goes_back_too(queue: KQueue) -> None:
    late = Late(JobInHand.delete)
    queue.add_handler("t", lambda job: late(job) if job.payload == "late" else job.delete())
    queue.add_jobs("t", ["early"] * 100, priority="high")
    ids = queue.add_jobs("t", ["early", "late", "rest"], ttr=600)
    loop = threading.Thread(target=queue.run_jobs, daemon=True)
    loop.start()
    assert late.has_begun.wait(60)
    queue.stop()
    queue.registry.give_up()
    rows = queue.store.get(ids)
    late.may_go_on.set()
    loop.join(60)
    assert [(row.id, row.state, row.tries) for row in rows] == [(id, "ready", 0) for id in ids[1:]]


def test_an_idle_process_has_nothing_to_give_up(queue: KQueue) -> None:
    queue.open()
    queue.registry.give_up()


# -- what a process held that is gone ------------------------------------------------------------------------


def abandon(queue: KQueue, *payloads: str) -> list[str]:
    """Jobs that run under a claim of this queue, and whose holder is gone."""
    ids = queue.add_jobs("t", payloads, ttr=600)
    held = threading.Event()

    def hold(job: JobInHand) -> None:
        held.set()
        threading.Event().wait()

    queue.add_handler("t", hold)
    threading.Thread(target=queue.run_jobs, daemon=True).start()
    assert held.wait(60)
    await_true(lambda: queue.counts("t")["running"] > 0)
    return ids


def test_what_a_killed_process_held_is_given_back_at_no_cost(make_queue: MakeQueue) -> None:
    dead, other = make_queue(), make_queue()
    (id,) = abandon(dead, "one")
    assert orphans.give_back(other, other.owner_tail) == 0
    assert orphans.give_back(other, dead.owner_tail) == 1
    (row,) = other.store.get([id])
    assert (row.state, row.tries, row.crashes, row.suspicion, row.fence) == ("ready", 0, 0, 0, 1)
    assert orphans.give_back(other, dead.owner_tail) == 0
    other.add_handler("t", JobInHand.delete)
    assert other.run_jobs().deleted == 1


def test_the_leases_of_a_process_that_died_end_and_the_sweep_blames_its_job(make_queue: MakeQueue) -> None:
    dead, other = make_queue(), make_queue()
    (id,) = abandon(dead, "one")
    assert orphans.end(other, other.owner_tail) == 0
    assert orphans.end(other, dead.owner_tail) == 1
    (row,) = other.store.get([id])
    assert (row.state, row.tries, row.crashes, row.fence) == ("ready", 1, 1, 1)
    assert orphans.end(other, dead.owner_tail) == 0  # blamed once
    other.add_handler("t", JobInHand.delete)
    assert other.run_jobs().deleted == 1
    assert orphans.end(other, dead.owner_tail) == 0


def test_a_lease_that_is_over_is_left_to_the_sweep_that_may_have_come_to_it(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job is blamed once for one death."""
    dead, other = make_queue(), make_queue()
    (id,) = abandon(dead, "one")
    if other.store.address.startswith("mongodb"):
        pytest.skip("MongoDB goes by the server's own clock, which no test turns")
    real_now, real_renew = other.store.now, other.store.renew

    def renew(*args: Any) -> frozenset[str]:
        other.sweep()
        return real_renew(*args)

    with monkeypatch.context() as patch:
        patch.setattr(other.store, "now", lambda: real_now() + 700)
        patch.setattr(other.store, "renew", renew)
        orphans.end(other, dead.owner_tail)
    (row,) = other.store.get([id])
    assert (row.state, row.crashes) == ("ready", 1)


def test_a_job_that_another_one_has_taken_since_is_left_alone(make_queue: MakeQueue) -> None:
    dead, other = make_queue(), make_queue()
    (id,) = abandon(dead, "one")
    orphans.end(other, dead.owner_tail)
    abandon(other)
    for act in (orphans.end, orphans.give_back):
        assert act(make_queue(), dead.owner_tail) == 0
    (row,) = other.store.get([id])
    assert (row.state, row.fence) == ("running", 2)
