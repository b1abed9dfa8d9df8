"""The account tells each broken promise: an account that finds nothing proves nothing."""

from pathlib import Path
from typing import Any

import pytest

from tests.torture.account import Account, Seen, reckon
from tests.torture.ledger import SUFFIX, Ledger, Record, read

NOTHING_LEFT = {"rows": 0, "ready": 0, "reserved": 0, "delayed": 0, "buried": 0}


def adding(*digests: str, add: str = "1") -> Record:
    return {"what": "adding", "add": add, "digests": list(digests)}


def added(*ids: str, add: str = "1") -> Record:
    return {"what": "added", "add": add, "ids": list(ids)}


def failed(taken: str = "", not_taken: str = "", unknown: str = "") -> Record:
    return {"what": "failed", "add": "1", "taken": [*taken], "not_taken": [*not_taken], "unknown": [*unknown]}


def run(id: str, fence: int = 1, digest: str = "A", act: str = "delete", start: float = 0.0) -> Record:
    return {"what": "run", "id": id, "fence": fence, "tries": 1, "start": start, "digest": digest, "act": act}


def end(id: str, fence: int = 1, act: str = "delete") -> Record:
    return {"what": "end", "id": id, "fence": fence, "act": act, "time": 1.0}


def account(*records: Record, **seen: Any) -> Account:
    return reckon(records, Seen(**{"left": NOTHING_LEFT, **seen}))


def test_a_job_that_is_added_run_and_deleted_breaks_nothing() -> None:
    reckoned = account(adding("A", "B"), added("a", "b"), run("a"), end("a"), run("b", digest="B"), end("b"))
    assert (reckoned.acknowledged, reckoned.run, reckoned.runs, reckoned.broken()) == (2, 2, 2, [])


@pytest.mark.parametrize(
    ("records", "what"),
    [
        ([], "it never ran"),
        ([run("a")], "its run never ended"),
        ([run("a"), end("a", act="retry")], "it was to run again"),
        ([run("a"), end("a"), run("a", 2)], "a later run took it and did not end"),
        ([run("a"), end("a"), {"what": "lost", "id": "a", "fence": 1, "unknown": False}], "its delete was refused"),
    ],
)
def test_a_job_whose_row_went_without_its_delete_is_lost(records: list[Record], what: str) -> None:
    reckoned = account(adding("A"), added("a"), *records, at_risk=[("a", 1)])
    assert reckoned.broken() == ["1 jobs were lost"], what


def test_a_delete_that_may_have_been_done_was_done_if_the_row_is_gone() -> None:
    told = {"what": "lost", "id": "a", "fence": 1, "unknown": True}
    assert account(adding("A"), added("a"), run("a"), end("a"), told).broken() == []
    assert account(adding("A"), added("a"), run("a"), end("a"), told, run("a", 2)).lost == 1


def test_a_job_that_is_still_there_is_left_and_not_lost() -> None:
    reckoned = account(adding("A"), added("a"), rows=frozenset("a"), left={**NOTHING_LEFT, "rows": 1})
    assert (reckoned.lost, reckoned.broken()) == (0, ["1 rows were left"])


@pytest.mark.parametrize("place", NOTHING_LEFT)
def test_what_is_left_anywhere_is_told(place: str) -> None:
    assert account(left={**NOTHING_LEFT, place: 3}).broken() == [f"3 {place} were left"]


def test_a_fence_that_two_runs_have_is_told() -> None:
    reckoned = account(adding("A"), added("a"), run("a"), run("a"), end("a"), at_risk=[("a", 1)])
    assert "1 claims had a fence that another had" in reckoned.broken()


@pytest.mark.parametrize(
    "records",
    [
        [run("a"), end("a")],
        [adding("A"), added("b"), run("b"), end("b"), run("a"), end("a")],
        [adding("A"), added("a"), run("a", digest="other"), end("a")],
        [adding("A"), added("a"), run("a", act="retry"), end("a", act="retry"), run("a", 2, "other"), end("a", 2)],
        [adding("A"), failed(not_taken="a"), run("a"), end("a")],
        [adding("A"), failed(), run("a"), end("a")],
    ],
    ids=["never added", "another's id", "altered", "altered at its second run", "refused", "never reached"],
)
def test_a_run_of_what_nobody_added_is_unexpected(records: list[Record]) -> None:
    assert account(*records).broken() == ["1 runs were unexpected"]


def test_what_a_killed_producer_was_adding_may_run_once_for_each_payload() -> None:
    records = [adding("A", "B"), run("a"), end("a")]
    assert (account(*records).unacknowledged, account(*records).broken()) == (1, [])
    assert account(*records, run("b"), end("b")).unexpected == 1


def test_a_call_that_failed_acknowledges_what_it_says_was_taken() -> None:
    reckoned = account(adding("A", "B", "C"), failed(taken="a", not_taken="b", unknown="c"), run("a"), end("a"))
    assert (reckoned.acknowledged, reckoned.broken()) == (1, [])
    assert account(adding("A"), failed(taken="a")).lost == 1
    assert account(adding("A"), failed(unknown="a")).broken() == []
    assert account(adding("A"), failed(unknown="a"), run("a"), end("a")).broken() == []


def test_a_run_that_its_handler_asked_for_is_no_duplicate() -> None:
    acts = ["retry", "unget", "raise", "forget"]
    again = [record for fence, act in enumerate(acts) for record in (run("a", fence), end("a", fence, act))]
    reckoned = account(adding("A"), added("a"), *again, run("a", 9), end("a", 9))
    assert (reckoned.runs, reckoned.duplicated, reckoned.broken()) == (5, 0, [])


def test_a_duplicate_is_allowed_where_a_fault_struck_its_claim_and_nowhere_else() -> None:
    records = [adding("A"), added("a"), run("a"), run("a", 3), end("a", 3)]
    struck = account(*records, at_risk=[("a", 1)])
    assert (struck.duplicated, struck.recovered, struck.broken()) == (1, 1, [])
    assert account(*records, at_risk=[("a", 2)]).broken() == ["1 duplicates came without a fault"]
    assert account(*records).broken() == [
        "1 duplicates came without a fault",
        "1 runs were duplicates, and at most 0 may be",
    ]


def test_a_run_past_its_ttr_may_cost_a_duplicate() -> None:
    lost = {"what": "lost", "id": "a", "fence": 1, "unknown": False}
    reckoned = account(
        adding("A"),
        added("a"),
        run("a", act="late delete"),
        end("a", act="late delete"),
        lost,
        run("a", 2),
        end("a", 2),
    )
    assert (reckoned.overslept, reckoned.duplicated, reckoned.leases_lost, reckoned.broken()) == (1, 1, 1, [])


def test_a_late_settle_is_stolen_if_the_next_holder_had_begun_before() -> None:
    late = [run("a", act="late delete"), end("a", act="late delete"), {"what": "kept", "id": "a", "fence": 1}]
    records = [adding("A"), added("a"), *late]
    assert account(*records).broken() == []
    stolen = account(*records, run("a", 2, start=0.5), end("a", 2))
    assert stolen.broken() == ["1 jobs were settled by a holder whose lease was lost"]
    assert account(*records, run("a", 2, start=1.5), end("a", 2)).stolen == 0


def test_a_process_that_fell_by_itself_is_told() -> None:
    assert account(fallen=1).broken() == ["1 processes fell by themselves or hung"]


def test_a_ledger_keeps_whole_lines_and_forgets_one_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / f"worker-1{SUFFIX}"
    Ledger(path).write("run", id="a", fence=1)
    Ledger(path).write("end", id="a", fence=1, act="delete")
    path.write_bytes(path.read_bytes() + b'{"what":"ru')
    assert [record["what"] for record in read(tmp_path)] == ["run", "end"]


def test_the_records_of_a_broken_job_are_shown() -> None:
    assert account(run("a"), end("a")).evidence == [run("a"), end("a")]
