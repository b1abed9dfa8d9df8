"""How jobs come into a store."""

import pytest

from kqueue.contracts.settlements import Retry
from kqueue.contracts.store import JobStore
from kqueue.model.errors import AddFailed, StoreError
from kqueue.model.job import State
from kqueue.testing.contracts.rows import NOW, add, claim, ids, read, row


def test_every_field_comes_back(store: JobStore, other: JobStore) -> None:
    full = row(
        type="a.b/c-d_e", payload=b"\x01", encoding="bytes", priority=2**32 - 1, state=State.DELAYED, delay=1.25,
        run_at=NOW + 0.123456, ttr=7.5, created_at=NOW + 0.1, put_at=NOW + 0.000001,
        unique_key="a ☃", limit_key="", own_options='{"max_tries":2}',
    )  # fmt: skip
    plain = row(put_at=None, priority=0)
    used = row(
        state=State.DEAD, fence=3, tries=2, failures=1, crashes=1, suspicion=2, alone=True, lease_owner="w",
        lease_until=NOW + 0.3, reason="x", gate="t k", keep_until=NOW + 0.7, history="[]", limit_key="k",
    )  # fmt: skip
    add(store, full, plain)
    add(store, used)
    assert other.get([full.id, plain.id, used.id]) == [full, plain, used]
    assert type(read(other, plain.id).alone) is bool


@pytest.mark.parametrize(
    "payload",
    [b"", b"x" * 3_000_000, b"a\0b\0", b"\r\n.\r\ndelete 1\r\n", bytes(range(256)), "naïve ☃".encode()],
    ids=["empty", "3 MB", "NUL", "CRLF", "not UTF-8", "not ASCII"],
)
def test_a_payload_comes_back_byte_for_byte(store: JobStore, other: JobStore, payload: bytes) -> None:
    (id,) = add(store, row(payload=payload, encoding="bytes"))
    assert read(other, id).payload == payload
    (held,) = claim(other, id).rows
    assert held.payload == payload
    assert isinstance(held.payload, bytes)
    store.settle([Retry(id, 1, NOW, "again", None)], NOW)
    assert read(other, id).payload == payload


def test_get_keeps_the_order_of_the_ids_and_leaves_out_what_is_not_there(store: JobStore) -> None:
    a, b, c = add(store, row(), row(), row())
    assert ids(store.get([c, "0" * 28, a, b])) == [c, a, b]


def test_an_id_that_is_there_already_is_not_taken_and_nothing_else_is_changed(
    store: JobStore, other: JobStore
) -> None:
    first = row(payload=b"1")
    add(store, first)
    again = first._replace(payload=b"2")
    with pytest.raises(AddFailed) as failed:
        other.add([again])
    assert failed.value.not_taken == (first.id,)
    assert failed.value.taken == failed.value.unknown == ()
    assert store.get([first.id]) == [first]


@pytest.mark.parametrize("around", [1, 130])
def test_after_a_failed_add_each_job_is_where_the_error_says(store: JobStore, around: int) -> None:
    there = row()
    add(store, there)
    before, after = [row() for _ in range(around)], [row() for _ in range(around)]
    with pytest.raises(AddFailed) as failed:
        store.add([*before, there, *after])
    assert set(failed.value.taken) | set(failed.value.not_taken) == {there.id, *ids(before), *ids(after)}
    assert there.id in failed.value.not_taken
    assert set(ids(store.get(ids([*before, *after])))) == set(failed.value.taken)


@pytest.mark.parametrize("count", [1, 49, 50, 51, 100, 149])
@pytest.mark.parametrize("size", [1, 5000])
def test_every_row_of_a_list_is_there_in_its_order(store: JobStore, other: JobStore, count: int, size: int) -> None:
    added = [row(payload=b"x" * size) for _ in range(count)]
    store.add(added)
    assert other.get(ids(added)) == added
    assert ids(claim(other).rows) == ids(added)


def test_rows_of_several_types_are_added_together(store: JobStore, other: JobStore) -> None:
    """Threads that add at once share one write."""
    rows = [row(type="a", payload=b"1"), row(type="b", priority=3, limit_key="k"), row(type="a", delay=5.0)]
    add(store, *rows)
    assert other.get([one.id for one in rows]) == rows


def test_an_add_to_a_store_that_is_not_there_names_every_job_as_not_taken(absent_store: JobStore) -> None:
    given = [row(), row()]
    with pytest.raises(AddFailed) as failed:
        absent_store.add(given)
    assert failed.value.not_taken == (given[0].id, given[1].id)
    assert failed.value.taken == failed.value.unknown == ()
    assert failed.value.__cause__ is not None
    assert isinstance(failed.value, StoreError)
    assert absent_store.address in str(failed.value)
