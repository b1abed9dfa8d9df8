"""What befalls a replica set of three members in a torture."""

import time
from collections.abc import Callable
from random import Random
from typing import Protocol

from tests.mongod import Mongod
from tests.replica_set import ELECTION_MS, ReplicaSet

#: Seconds that a member stays away or is cut off: shorter and longer than an election takes.
AWAY_S = (0.2, 2.5 * ELECTION_MS / 1000)


class StrikeStore(Protocol):
    """Of the referee."""

    def __call__(self, strike: Callable[[], None], rest: Callable[[], None]) -> None:
        """Do ``strike`` while no worker runs, and ``rest`` after it."""


def set_faults(members: ReplicaSet, random: Random, strike: StrikeStore) -> dict[str, Callable[[], None]]:
    """The faults by their names."""

    def away() -> None:
        time.sleep(random.uniform(*AWAY_S))

    def kill_primary() -> None:
        primary = members.primary()

        def rest() -> None:
            away()
            primary.restart()
            members.primary()

        strike(primary.kill, rest)

    def step_down() -> None:
        primary = members.primary()
        strike(primary.step_down, lambda: wait_for(members))

    def cut_off(chosen: list[Mongod]) -> None:
        def begin() -> None:
            for member in chosen:
                member.freeze()

        def rest() -> None:
            away()
            for member in chosen:
                member.thaw()
            members.primary()

        strike(begin, rest)

    return {
        "kill primary": kill_primary,
        "step down": step_down,
        "cut off primary": lambda: cut_off([members.primary()]),
        "cut off majority": lambda: cut_off(members.secondaries()),
    }


def wait_for(members: ReplicaSet) -> None:
    """Until there is a primary again."""
    members.primary()
