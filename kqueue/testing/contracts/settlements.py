"""A run of a job: settled, once."""

import pytest

from kqueue.contracts.runs import LeaseKey
from kqueue.contracts.settlements import Delete, Die, Finish, Retry, Settled, Settlement, Unget
from kqueue.contracts.store import JobStore
from kqueue.model.job import State
from kqueue.testing.contracts.rows import NOW, SETTLEMENTS, Settle, add, claim, claimed_row, ids, read, row


@pytest.fixture(params=SETTLEMENTS)
def settlement(request: pytest.FixtureRequest) -> Settle:
    return SETTLEMENTS[request.param]


def test_delete_takes_the_row_away(store: JobStore, other: JobStore) -> None:
    held = claimed_row(store)
    assert store.settle([Delete(held.id, 1)], NOW) == Settled()
    assert other.get([held.id]) == []
    assert claim(other, held.id).rows == []


def test_retry_adds_a_failure_and_says_why_and_when(store: JobStore, other: JobStore) -> None:
    held = claimed_row(store, crashes=1, suspicion=2, alone=True)
    assert store.settle([Retry(held.id, 1, NOW + 9, "broken", NOW + 8)], NOW) == Settled()
    assert read(other, held.id) == held._replace(
        state=State.DELAYED, run_at=NOW + 9, reason="broken", put_at=NOW + 8, failures=1, crashes=0, suspicion=0,
        alone=False, lease_owner=None, lease_until=None, history=read(other, held.id).history,
        asked_at=NOW,
    )  # fmt: skip


def test_unget_takes_the_try_off_again(store: JobStore, other: JobStore) -> None:
    held = claimed_row(store, crashes=1, suspicion=2)
    assert store.settle([Unget(held.id, 1, NOW + 9, 7, None, started=False)], NOW) == Settled()
    assert read(other, held.id) == held._replace(
        state=State.DELAYED, run_at=NOW + 9, priority=7, put_at=None, tries=0,
        alone=False, lease_owner=None, lease_until=None, asked_at=NOW,
    )  # fmt: skip


def test_unget_of_a_started_run_clears_its_name_and_may_keep_its_priority(store: JobStore) -> None:
    held = claimed_row(store, crashes=1, suspicion=2, priority=44)
    store.settle([Unget(held.id, 1, NOW, None, None, started=True)], NOW)
    after = read(store, held.id)
    assert (after.crashes, after.suspicion, after.priority, after.failures) == (0, 0, 44, 0)


def test_unget_may_say_why_or_keep_what_was_said(store: JobStore) -> None:
    held = claimed_row(store)
    store.settle([Unget(held.id, 1, NOW, None, None, started=True, reason="no table")], NOW)
    (held,) = claim(store, held.id).rows
    assert held.reason == "no table"
    store.settle([Unget(held.id, 2, NOW, None, None, started=False)], NOW)
    assert read(store, held.id).reason == "no table"


def test_die_keeps_the_row_and_says_why(store: JobStore, other: JobStore) -> None:
    held = claimed_row(store, crashes=1, suspicion=2)
    assert store.settle([Die(held.id, 1, "enough")], NOW) == Settled()
    after = read(other, held.id)
    assert (after.state, after.reason, after.failures) == (State.DEAD, "enough", 1)
    assert (after.crashes, after.suspicion) == (0, 0)
    assert (after.lease_owner, after.lease_until) == (None, None)
    assert claim(other, held.id).rows == []


@pytest.mark.parametrize(
    ("run_at", "state"), [(NOW + 0.001, State.DELAYED), (NOW, State.READY), (0.0, State.READY)]
)
@pytest.mark.parametrize("verb", ["retry", "unget"])
def test_what_comes_back_is_delayed_only_until_it_is_due(
    store: JobStore, verb: str, run_at: float, state: str
) -> None:
    held = claimed_row(store)
    store.settle([SETTLEMENTS[verb](held.id, 1)._replace(run_at=run_at)], NOW)
    assert read(store, held.id).state == state
    assert store.has_ready(["t"]) is (state == State.READY)


@pytest.mark.parametrize("wrong", [0, 2])
def test_a_settle_with_a_wrong_fence_changes_nothing(store: JobStore, settlement: Settle, wrong: int) -> None:
    held = claimed_row(store)
    result = store.settle([settlement(held.id, wrong)], NOW)
    assert result.lost == {held.id} or (result.unnamed == 1 and isinstance(settlement(held.id, wrong), Delete))
    assert read(store, held.id) == held


@pytest.mark.parametrize("second", SETTLEMENTS)
@pytest.mark.parametrize("first", ["retry", "unget", "die", "finish"])
@pytest.mark.parametrize("run_at", [NOW, NOW + 9], ids=["ready again", "delayed"])
def test_a_run_is_settled_once(store: JobStore, other: JobStore, first: str, second: str, run_at: float) -> None:
    (id,) = add(store, row())
    store.settle([Retry(id, claim(store, id).rows[0].fence, NOW, "broken", NOW)], NOW)
    (held,) = claim(store, id, owner="me").rows
    ending = SETTLEMENTS[first](id, held.fence)
    ending = ending._replace(run_at=run_at) if first in {"retry", "unget"} else ending
    assert store.settle([ending], NOW) == Settled()
    before = read(store, id)
    assert (before.tries, before.failures) == {"retry": (2, 2), "unget": (1, 1), "die": (2, 2), "finish": (2, 1)}[
        first
    ]
    result = other.settle([SETTLEMENTS[second](id, held.fence)], NOW + 1)
    assert len(result.lost) + result.unnamed == 1
    assert read(store, id) == before
    assert store.claimed_by("me") == []


def test_a_delete_counts_once(store: JobStore, other: JobStore) -> None:
    held = claimed_row(store)
    assert store.settle([Delete(held.id, 1)], NOW) == Settled()
    result = other.settle([Delete(held.id, 1)], NOW)
    assert len(result.lost) + result.unnamed == 1


def test_a_settle_of_a_row_that_is_gone_is_lost(store: JobStore, settlement: Settle) -> None:
    result = store.settle([settlement("0" * 28, 1)], NOW)
    assert len(result.lost) + result.unnamed == 1
    assert store.counts() == {"delayed": 0, "ready": 0, "held": 0, "running": 0, "dead": 0, "done": 0}


def test_the_newer_holder_is_never_touched_by_the_older(
    store: JobStore, other: JobStore, settlement: Settle
) -> None:
    held = claimed_row(store)
    other.recover(NOW + 31, 3, 10)
    (newer,) = claim(other, held.id, now=NOW + 32).rows
    before = read(other, held.id)
    store.settle([settlement(held.id, 1)], NOW + 33)
    assert (read(other, held.id), before.fence) == (before, newer.fence)
    assert other.settle([settlement(held.id, 2)], NOW + 34) == Settled()


def test_a_mixed_batch_settles_what_it_may_and_counts_the_rest(store: JobStore, other: JobStore) -> None:
    jobs = [claimed_row(store) for _ in range(8)]
    good, bad = jobs[:4], jobs[4:]
    other.recover(NOW + 31, 3, 10)
    claim(other, *ids(bad), now=NOW + 32)
    batch: list[Settlement] = [Delete(job.id, 1) for job in (good[0], bad[0])]
    batch += [Retry(job.id, 1, NOW + 99, "broken", None) for job in (good[1], bad[1])]
    batch += [Unget(job.id, 1, NOW + 99, None, None, started=True) for job in (good[2], bad[2])]
    batch += [Die(job.id, 1, "enough") for job in (good[3], bad[3])]
    result = store.settle(batch, NOW + 33)
    assert len(result.lost) + result.unnamed == 4
    assert result.lost <= set(ids(bad))
    assert result.lost >= set(ids(bad[1:]))
    assert store.get([good[0].id]) == []
    after = store.get(ids(good[1:]))
    assert [job.state for job in after] == [State.DELAYED, State.DELAYED, State.DEAD]
    assert [job.failures for job in after] == [1, 0, 1]
    assert [(job.state, job.fence, job.tries) for job in store.get(ids(bad))] == [(State.RUNNING, 2, 2)] * 4


def test_a_late_holder_may_settle_until_the_next_claim(
    store: JobStore, other: JobStore, settlement: Settle
) -> None:
    held = claimed_row(store)
    other.recover(NOW + 31, 3, 10)
    assert store.settle([settlement(held.id, 1)], NOW + 32) == Settled()
    result = store.settle([settlement(held.id, 1)], NOW + 32)
    assert len(result.lost) + result.unnamed == 1


def test_the_holder_of_a_row_that_died_meanwhile_may_settle_it(
    store: JobStore, other: JobStore, settlement: Settle
) -> None:
    held = claimed_row(store, alone=True)
    recovered = other.recover(NOW + 31, 1, 10)
    assert (recovered.ready, ids(recovered.died)) == (0, [held.id])
    assert store.settle([settlement(held.id, 1)], NOW + 32) == Settled()
    verb = settlement(held.id, 1)
    after = [job.state for job in other.get([held.id])]
    assert after == {Delete: [], Die: ["dead"], Finish: ["done"]}.get(type(verb), ["ready"])


def test_a_late_holder_has_lost_a_row_that_was_revived(store: JobStore, settlement: Settle) -> None:
    held = claimed_row(store, alone=True)
    store.recover(NOW + 31, 1, 10)
    store.revive([held.id], "once more", NOW + 32, None)
    before = read(store, held.id)
    result = store.settle([settlement(held.id, 1)], NOW + 33)
    assert len(result.lost) + result.unnamed == 1
    assert store.renew([LeaseKey(held.id, 1, 30.0)], NOW + 33) == {held.id}
    assert read(store, held.id) == before


@pytest.mark.parametrize("reason", ["", "tab\tnewline\n", "NUL \0 in it", "☃" * 5000, "file \udc80 name"])
def test_a_reason_may_hold_anything(store: JobStore, reason: str) -> None:
    """An exception's text may hold a lone surrogate: a settle must not fail for it. UTF-8 cannot keep it."""
    retried, died, back, deleted = (claimed_row(store) for _ in range(4))
    batch: list[Settlement] = [
        Retry(retried.id, 1, NOW, reason, None),
        Die(died.id, 1, reason),
        Unget(back.id, 1, NOW, None, None, started=True, reason=reason),
        Delete(deleted.id, 1),
    ]
    assert store.settle(batch, NOW) == Settled()
    kept = {job.reason for job in store.get([retried.id, died.id, back.id])}
    assert len(kept) == 1
    assert "udc80" in repr(kept) if "\udc80" in reason else kept == {reason}
