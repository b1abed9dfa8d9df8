"""From the facts about a job to the sentences that tell why it does not run."""

import json
from typing import Any

import pytest

from kqueue.admin.why import MOST_AHEAD, Cause, Facts, why
from kqueue.contracts.admission import Limit
from kqueue.contracts.operator import ALL_TYPES
from kqueue.contracts.repair import Head
from kqueue.contracts.workers import ALIVE_S, WorkerRecord
from kqueue.model.ids import origin
from kqueue.model.job import Row, State
from kqueue.system.mint import IdMint
from kqueue.upkeep.hanging import Hanging, Hung

NOW = 1_700_000_000.0
[OWNER] = IdMint().make(1)


def job(**fields: Any) -> Row:
    row = Row(
        "0" * 28, "mail", b"{}", "json", 100, State.READY, 0.0, NOW - 60, 30.0, created_at=NOW, put_at=NOW - 60
    )
    return row._replace(**fields)


def worker(*types: str, seen: float = 1.0) -> WorkerRecord:
    return WorkerRecord("1" * 28, "here", 1, types, NOW - 100, NOW - seen)


def about(row: Row, **facts: Any) -> dict[Cause, str]:
    usual: dict[str, Any] = {
        "now": NOW,
        "paused": {},
        "workers": [worker("mail")],
        "ahead": 0,
        "limit": None,
        "has_tubes": True,
        "head": Head(100, NOW - 60),
        "broker_error": None,
        "grace": 5.0,
        "sweep_interval": 15.0,
        "max_crashes": 3,
    }
    return {answer.cause: answer.text for answer in why(Facts(row=row, **{**usual, **facts}))}


def test_nothing_keeps_a_job_that_is_next() -> None:
    workers = [worker("mail"), worker("mail"), worker("other"), worker("mail", seen=ALIVE_S + 1)]
    said = about(job(), workers=workers)
    assert list(said) == [Cause.NOTHING]
    assert "(2 alive) takes it, after what is more urgent" in said[Cause.NOTHING]


def test_a_run_that_hangs_is_told_where() -> None:
    note = json.dumps(Hanging((Hung("0" * 28, "mail", 29.0),)).note())
    workers = [WorkerRecord("1" * 28, "here", 12, ("mail",), NOW - 100, NOW - 1, note)]
    running = job(state=State.RUNNING, lease_owner=OWNER, lease_until=NOW - 5)
    said = about(running, workers=workers)[Cause.ABANDONED]
    assert "; it still runs in process 12 on here, 30 s beyond its lease" in said
    dead, done = job(state=State.DEAD, failures=1), job(state=State.DONE)
    later = job(state=State.DELAYED, run_at=NOW + 9)
    for row, cause in ((dead, Cause.DEAD), (done, Cause.DONE), (later, Cause.DELAYED)):
        assert "still runs in process 12 on here, 30 s beyond its lease" in about(row, workers=workers)[cause]
    said = about(job(), workers=workers)[Cause.WAITING]
    assert "it still runs in process 12 on here, 30 s beyond its lease; another one is to come" in said


@pytest.mark.parametrize(
    ("row", "ahead"),
    [
        (job(put_at=NOW + 40), "40 s"),
        (job(state=State.DELAYED, run_at=NOW + 99, created_at=NOW + 90), "99 s"),
        (job(state=State.RUNNING, lease_owner=OWNER, lease_until=NOW + 7200), "2 h"),
    ],
)
def test_a_time_that_a_clock_ahead_has_written(row: Row, ahead: str) -> None:
    said = about(row)
    assert next(iter(said)) == Cause.CLOCK
    assert (
        f"one of its times lies {ahead} in the future; the next sweep sets it right (every 15 s"
        in said[Cause.CLOCK]
    )


def test_a_worker_that_was_heard_of_by_a_clock_ahead_is_not_alive() -> None:
    assert Cause.NO_WORKER in about(job(), workers=[worker("mail", seen=-3600.0)])


def test_dead() -> None:
    said = about(job(state=State.DEAD, failures=3, reason="ValueError: no"), paused={"mail": NOW})
    assert list(said) == [Cause.DEAD]
    assert said[Cause.DEAD].startswith("it is dead after 3 failed runs: ValueError: no; kqueue retry 000")
    assert "after 2 deaths of its worker" in about(job(state=State.DEAD, crashes=2))[Cause.DEAD]


def test_done() -> None:
    assert "finished; kept until 20" in about(job(state=State.DONE, keep_until=NOW))[Cause.DONE]


def test_running_says_who_holds_it_and_until_when() -> None:
    said = about(job(state=State.RUNNING, lease_owner=OWNER, lease_until=NOW + 20))
    assert list(said) == [Cause.RUNNING]
    assert "held by process" in said[Cause.RUNNING]
    assert "on this host until 20" in said[Cause.RUNNING]
    assert "(for 20 s)" in said[Cause.RUNNING]


def test_a_run_that_was_renewed_says_for_how_long_it_has_run() -> None:
    now = origin(OWNER).made_at + 7200
    [text] = about(job(state=State.RUNNING, lease_owner=OWNER, lease_until=now + 20), now=now).values()
    assert "it has run for 2 h, its lease renewed: if its handler hangs, only max_runtime ends it" in text
    [text] = about(job(state=State.RUNNING, lease_owner="?", lease_until=now + 20), now=now).values()
    assert "it has run" not in text


def test_abandoned_says_when_the_sweep_mends_it() -> None:
    said = about(job(state=State.RUNNING, lease_owner=OWNER, lease_until=NOW - 20, alone=True, crashes=1))
    assert list(said) == [Cause.ABANDONED]
    assert (
        "ran out 20 s ago; it ran alone: crash 2 of 3; the next sweep takes it back (every 15 s"
        in said[Cause.ABANDONED]
    )


def test_delayed_says_until_when_and_after_what() -> None:
    said = about(job(state=State.DELAYED, run_at=NOW + 90, failures=1, reason="busy"), paused={"mail": NOW - 10})
    assert list(said) == [Cause.DELAYED, Cause.PAUSED]
    assert said[Cause.DELAYED].endswith("(for 90 s); said last: busy")


def test_a_delay_that_is_over_counts_as_ready() -> None:
    assert list(about(job(state=State.DELAYED, run_at=NOW - 1), ahead=2)) == [Cause.WAITING]


@pytest.mark.parametrize(
    ("limit", "gate", "said"),
    [
        (
            Limit("mail", running=2, starts=10, period=60),
            "mail",
            "(2 at once and 10 starts in 60 s): it waits for a place, which the end of a run, or of a period,",
        ),
        (Limit("mail", running=2), "mail", "(2 at once): it waits for a place, which the end of a run gives"),
        (Limit("mail", running_per_key=1), "mail k", "limit key 'k' of its type is reached (1 at once for each"),
        (None, "mail", "the limit of its type is reached: it waits for a place"),
    ],
)
def test_held_says_which_limit(limit: Limit | None, gate: str, said: str) -> None:
    found = about(job(state=State.HELD, gate=gate, limit_key="k", put_at=None), limit=limit)
    assert list(found) == [Cause.LIMIT]
    assert said in found[Cause.LIMIT]


def test_paused_by_type_and_as_a_whole() -> None:
    said = why_paused = about(job(), paused={"mail": NOW - 180, ALL_TYPES: NOW - 5, "other": NOW})
    assert list(why_paused) == [Cause.PAUSED]
    assert said[Cause.PAUSED] == "the whole queue is paused for 5 s; kqueue resume --all lets it run"
    assert "its type 'mail' is paused for 3 min" in about(job(), paused={"mail": NOW - 180})[Cause.PAUSED]
    assert list(about(job(), paused={"other": NOW})) == [Cause.NOTHING]


def test_no_handler_on_any_live_worker() -> None:
    said = about(job(), workers=[worker("other"), worker("mail", seen=ALIVE_S + 1)])
    assert said == {Cause.NO_HANDLER: "no live worker has a handler for its type 'mail' (1 alive)"}


def test_no_worker_at_all() -> None:
    assert "no worker waits for jobs: start one" in about(job(), workers=[])[Cause.NO_WORKER]
    assert "the last was heard of 100 s ago" in about(job(), workers=[worker("mail", seen=100)])[Cause.NO_WORKER]


def test_no_pointer_yet_and_a_lost_one() -> None:
    assert "has no pointer in its tube" in about(job(put_at=None))[Cause.NO_POINTER]
    assert "lost from its tube" in about(job(), head=None)[Cause.NO_POINTER]
    assert "lost from its tube" in about(job(), head=Head(100, NOW - 10))[Cause.NO_POINTER]
    assert list(about(job(), head=Head(100, NOW - 100), ahead=1)) == [Cause.WAITING]
    assert list(about(job(put_at=None), has_tubes=False, head=None)) == [Cause.NOTHING]


def test_a_broker_that_does_not_answer_says_nothing_about_pointers() -> None:
    assert about(job(), head=None, broker_error="no route") == {
        Cause.BROKER_DOWN: "the broker does not answer, and workers ask the store: no route"
    }


def test_waiting_behind_others() -> None:
    assert about(job(), ahead=7)[Cause.WAITING] == "7 jobs of its type come before it"
    assert about(job(), ahead=MOST_AHEAD)[Cause.WAITING] == "10000 or more jobs of its type come before it"


def test_all_that_holds_up_a_ready_job_is_told() -> None:
    said = about(job(put_at=None), paused={"mail": NOW}, workers=[], broker_error="down", ahead=3)
    assert list(said) == [Cause.PAUSED, Cause.NO_WORKER, Cause.NO_POINTER, Cause.BROKER_DOWN, Cause.WAITING]
    assert all("\n" not in text for text in said.values())
