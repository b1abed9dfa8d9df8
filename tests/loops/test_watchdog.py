"""The thread that attends to what is in hand."""

import logging
import math

import pytest

from kqueue.loops.watchdog import Watchdog
from kqueue.system.clock import SystemClock
from tests.tubes import await_true


class Script:
    """Wants attention until its list is empty; raises what is on it."""

    def __init__(self, *ends: Exception | None) -> None:
        self.ends = list(ends)
        self.looks = 0

    def wants_attention_at(self, now: float) -> float:
        return now if self.ends else math.inf

    def attend(self, now: float) -> None:
        end = self.ends.pop(0)
        if end is not None:
            raise end

    def tell_late(self, now: float) -> None:
        self.looks += 1


def test_what_fails_is_told_of_once_until_all_goes_well_again(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(OSError("first"), OSError("again"), None, OSError("second"), None)
    watchdog = Watchdog(script, SystemClock(), logging.getLogger("kqueue"))
    watchdog.wake()
    await_true(lambda: not script.ends)
    watchdog.close()
    assert [record.message for record in caplog.records] == ["not settled yet: first", "not settled yet: second"]
