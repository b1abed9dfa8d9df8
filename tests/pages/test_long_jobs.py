"""What the page on long jobs says of the code is so."""

from kqueue.execution.lease_check import LOOK_S
from kqueue.renewal.client import IDLE_S
from kqueue.renewal.due import PART, SLACK
from tests.pages.blocks import page

PAGE = page("long_jobs")


def test_the_times_are_those_of_the_code() -> None:
    assert (PART, SLACK, LOOK_S, IDLE_S) == (1 / 3, 1 / 12, 1.0, 60.0)
    for said in ("whenever a third of the\nTTR", "at most once a second", "after a minute without work"):
        assert said in PAGE
