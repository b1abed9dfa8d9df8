"""Which errors of a replica set pass by themselves. The replies are such as members gave in the torture."""

from typing import Any
from unittest.mock import Mock

import pytest
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError, WriteError

from kqueue.model.errors import AddFailed, StoreError, StoreUnavailable
from kqueue.model.job import Row, State
from kqueue.stores.mongo.intake import insert
from kqueue.stores.mongo.server.errors import named

NOT_PRIMARY = {"index": 1, "code": 10107, "errmsg": "Not primary while writing to app.kqueue_jobs"}
STEPPED_DOWN = {"index": 1, "code": 189, "errmsg": "operation was interrupted: PrimarySteppedDown"}
REFUSED = {"index": 1, "code": 121, "errmsg": "Document failed validation"}


@pytest.mark.parametrize(
    "error",
    [
        BulkWriteError({"writeErrors": [NOT_PRIMARY]}),
        BulkWriteError({"writeErrors": [STEPPED_DOWN]}),
        WriteError("Not primary while writing", 10107),
        OperationFailure("interrupted at shutdown", 11600),
    ],
)
def test_a_primary_that_steps_down_while_it_writes_is_away_and_refuses_nothing(error: PyMongoError) -> None:
    ours = named(error, "mongodb://a/app")
    assert isinstance(ours, StoreUnavailable)
    assert ours.may_be_done


@pytest.mark.parametrize("others", [[], [NOT_PRIMARY]])
def test_what_the_server_refuses_is_refused(others: list[dict[str, Any]]) -> None:
    ours = named(BulkWriteError({"writeErrors": [REFUSED, *others]}), "mongodb://a/app")
    assert type(ours) is StoreError


@pytest.mark.parametrize("refusal", [NOT_PRIMARY, REFUSED])
def test_what_was_written_before_its_member_was_the_primary_no_more_is_not_acknowledged(
    refusal: dict[str, Any],
) -> None:
    rows = [Row(id, "mail", b"1", "json", 1, State.READY, 0.0, 0.0, 60.0) for id in ("a", "b")]
    jobs = Mock()
    jobs.insert_many.side_effect = BulkWriteError({"writeErrors": [refusal]})
    with pytest.raises(AddFailed) as caught:
        insert(jobs, rows, [0, 1], "mongodb://a/app")
    assert caught.value.not_taken == ("b",)
    kept = (caught.value.taken, caught.value.unknown)
    assert kept == (((), ("a",)) if refusal is NOT_PRIMARY else (("a",), ()))
