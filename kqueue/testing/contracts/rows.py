"""Rows as the suites make them, and what is done with them again and again."""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from typing import Any, TypeAlias

from kqueue.contracts.admission import Admission, Claimer, Limit
from kqueue.contracts.budget import Budget
from kqueue.contracts.repair import Abandoned, Due, Recovered
from kqueue.contracts.runs import Claim, Selection
from kqueue.contracts.settlements import Delete, Die, Finish, Retry, Unget
from kqueue.contracts.store import JobStore
from kqueue.model.job import Row, State

#: Opens one more handle on the data of this test, as another process would.
MakeStore: TypeAlias = Callable[[], JobStore]

#: The suites' own time: every call is told what time it is.
NOW = 1_700_000_000.0
NUMBERS = count(1)


def window(jobs: int = 1000, **bounds: Any) -> Budget:
    """A budget under which every job of the suites' types is expected to take no time."""
    return Budget(jobs=jobs, job_s=dict.fromkeys(["t", "x", "y", "z"], 0.0), **bounds)


WIDE = window()
#: What a claim gets that finds nothing.
NOTHING = Claim([], False, {})


def row(**fields: Any) -> Row:
    """A new ready row of type ``t``; what is not named does not matter to the test."""
    id = f"{next(NUMBERS):028d}"
    defaults = Row(
        id=id, type="t", payload=b"{}", encoding="json", priority=100, state=State.READY, delay=0.0, run_at=NOW,
        ttr=30.0, created_at=NOW, put_at=NOW,
    )  # fmt: skip
    return defaults._replace(**fields)


def delayed(run_at: float, **fields: Any) -> Row:
    """A new delayed row."""
    return row(state=State.DELAYED, run_at=run_at, **fields)


def add(store: JobStore, *rows: Row) -> list[str]:
    """Their ids."""
    store.add(rows)
    return [row.id for row in rows]


def add_unique(store: JobStore, job: Row, until: float = NOW, now: float = NOW) -> str:
    """The id of the job that has its key then. ``until``: by default the key has no time of its own."""
    (holder,) = store.add_unique([job], {job.id: until}, now)
    return holder


def read(store: JobStore, id: str) -> Row:
    """As it is stored."""
    (found,) = store.get([id])
    return found


def claim(
    store: JobStore,
    *ids: str,
    types: Sequence[str] = ("t",),
    budget: Budget = WIDE,
    now: float = NOW,
    alone: bool = False,
    owner: str | None = None,
    limits: Sequence[Limit] = (),
    holder: Claimer | None = None,
    pointed: Mapping[str, int] | None = None,
) -> Claim:
    """By ids, or whatever is ready if there are none."""
    selection = Selection(tuple(types), ids or None, tuple(limits), holder, pointed or {})
    return store.claim(selection, budget, owner or f"window-{next(NUMBERS)}", now, alone)


def claimed_row(store: JobStore, alone: bool = False, **fields: Any) -> Row:
    """A new row in the hand of a holder, with fence 1."""
    (id,) = add(store, row(**fields))
    (held,) = claim(store, id, types=(fields.get("type", "t"),), alone=alone).rows
    return held


def abandon(store: JobStore, *rows: Row, alone: bool = False, now: float = NOW, max_crashes: int = 3) -> Recovered:
    """Claim the rows together and let their lease run out."""
    taken = claim(store, *(row.id for row in rows), alone=alone, now=now).rows
    assert len(taken) == len(rows)
    return store.recover(now + 31, max_crashes, 100)


def ids(rows: Sequence[Row] | Sequence[Due] | Sequence[Abandoned]) -> list[str]:
    """In their order."""
    return [row.id for row in rows]


#: From a job's id and fence to one end of its run.
Settle: TypeAlias = Callable[[str, int], Any]
SETTLEMENTS: dict[str, Settle] = {
    "delete": Delete,
    "retry": lambda id, fence: Retry(id, fence, NOW + 9, "broken", NOW),
    "unget": lambda id, fence: Unget(id, fence, NOW + 9, 7, NOW, started=True),
    "die": lambda id, fence: Die(id, fence, "enough"),
    "finish": lambda id, fence: Finish(id, fence, NOW + 99),
}


# -- limits, and rows at their gates ----------------------------------------------------------------------

ONE = (Limit("t", running=1),)
TWO = (Limit("t", running=2),)
ONE_A_KEY = (Limit("t", running_per_key=1),)


def states(store: JobStore, given: Sequence[str]) -> list[str]:
    """Of rows, by their ids."""
    return [job.state for job in store.get(given)]


def gates(store: JobStore, given: Sequence[str]) -> list[str | None]:
    """Of rows, by their ids."""
    return [job.gate for job in store.get(given)]


def admit(
    store: JobStore,
    limit: Limit,
    keys: Collection[str] | None = None,
    now: float = NOW,
    most: int = 100,
    holder: Claimer | None = None,
) -> Admission:
    """What is let through, and put now."""
    return store.admit(limit, keys, now, now, most, holder=holder)


def keyed(*keys: str | None, **fields: Any) -> list[Row]:
    """New rows with these keys for limits."""
    return [row(limit_key=key, **fields) for key in keys]


def held_row(store: JobStore) -> tuple[str, Row]:
    """A row that is held at the gate of its type, behind one that runs and is given beside it."""
    running = claim(store, *add(store, row()), limits=ONE).rows[0]
    (waiting,) = add(store, row())
    assert claim(store, waiting, limits=ONE).held == 1
    return waiting, running
