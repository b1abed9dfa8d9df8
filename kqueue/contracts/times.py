"""What a clock that was ahead has left in a store: found, and set right."""

from collections.abc import Sequence
from typing import Protocol

from kqueue.contracts.stored_times import Misdated


class TimeRepair(Protocol):
    """What a clock that was ahead has left in a store: found, and set right. See :mod:`kqueue.contracts.store` for
    what holds for every method.
    """

    def find_misdated(self, types: Sequence[str] | None, now: float, most: int) -> list[Misdated]:
        """Up to ``most`` records of each kind that hold a time which lies further ahead of ``now`` than it can:
        see :mod:`kqueue.contracts.stored_times`. Changes nothing, and costs a few index probes whatever there is,
        and some more for each TTR under which jobs run.

        With ``types``: of the ready rows of these types that have a pointer, a few probes for each type and
        priority. With None: of all other jobs that wait, run or have ended, of unique keys, counted starts, pauses
        and workers. What is under way may be passed over: what cannot be seen of a running row is set right when
        its run ends.
        """

    def repair_times(self, types: Sequence[str] | None, now: float, most: int) -> int:
        """Set right what :meth:`find_misdated` would find, and return how many records that were. Of two at once
        one changes a row, and none overwrites what anybody else has changed meanwhile.
        """
