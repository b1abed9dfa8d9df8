"""What a store tells a loop that has no broker."""

from collections.abc import Callable

from kqueue.contracts.repair import Due
from kqueue.contracts.runs import LeaseKey
from kqueue.contracts.settlements import Retry
from kqueue.contracts.store import JobStore
from kqueue.testing.contracts.rows import NOW, add, claim, claimed_row, delayed, row


def test_has_ready_looks_at_the_types_that_it_is_given(store: JobStore) -> None:
    add(store, row(type="a"), delayed(NOW - 5, type="later"))
    claimed_row(store, type="running")
    assert store.has_ready(["none", "a"])
    assert not store.has_ready(["none", "later", "running"])


def test_next_run_at_is_that_of_the_earliest_delayed_row(store: JobStore, other: JobStore) -> None:
    _, early, late = add(store, row(run_at=NOW - 99), delayed(NOW + 5), delayed(NOW + 9))
    assert store.next_run_at() == NOW + 5
    claim(other, early, now=NOW + 6)
    assert store.next_run_at() == NOW + 9
    other.delete([late])
    assert store.next_run_at() is None


def test_the_pulse_differs_after_any_change(store: JobStore, other: JobStore) -> None:
    if store.pulse() is None:
        return  # It is allowed to have none.
    job = row(put_at=None)
    changes: list[Callable[[JobStore], object]] = [
        lambda handle: handle.add([job]),
        lambda handle: handle.mark([Due(job.id, "t", 100, NOW, None)], NOW),
        lambda handle: claim(handle, job.id),
        lambda handle: handle.renew([LeaseKey(job.id, 1, 99.0)], NOW),
        lambda handle: handle.recover(NOW + 99, 3, 10),
        claim,
        lambda handle: handle.settle([Retry(job.id, 2, NOW + 200, "again", None)], NOW),
        lambda handle: handle.promote(NOW + 200, 10),
        lambda handle: handle.purge("t", 10),
    ]
    for number, change in enumerate(changes):
        before = store.pulse()
        change(other if number % 2 else store)
        assert store.pulse() != before, number
