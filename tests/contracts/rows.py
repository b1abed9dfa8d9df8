"""Rows of the contract's tests, and what is done with them again and again."""

from itertools import count

from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Claim, Selection
from kqueue.model.job import Row, State

#: The tests' own time: every call is told what time it is.
NOW = 1_700_000_000.0
NUMBERS = count(1)


def window(jobs=1000, **bounds):
    """Limits under which every job of the tests' types is expected to take no time."""
    return Budget(jobs=jobs, job_s=dict.fromkeys(["t", "x", "y", "z"], 0.0), **bounds)


WIDE = window()
#: What a claim gets that finds nothing.
NOTHING = Claim([], False, {})


def row(**fields):
    """A new ready row of type ``t``; what is not named does not matter to the test."""
    id = f"{next(NUMBERS):028d}"
    defaults = Row(
        id=id, type="t", payload=b"{}", encoding="json", priority=100, state=State.READY, delay=0.0, run_at=NOW,
        ttr=30.0, created_at=NOW, put_at=NOW,
    )  # fmt: skip
    return defaults._replace(**fields)


def delayed(run_at, **fields):
    return row(state=State.DELAYED, run_at=run_at, **fields)


def add(store, *rows):
    store.add(rows)
    return [row.id for row in rows]


def read(store, id):
    (found,) = store.get([id])
    return found


def claim(store, *ids, types=("t",), budget=WIDE, now=NOW, alone=False, owner=None, limits=()):
    """By ids, or whatever is ready if there are none."""
    selection = Selection(types, ids or None, limits)
    return store.claim(selection, budget, owner or f"window-{next(NUMBERS)}", now, alone)


def claimed_row(store, alone=False, **fields):
    """A new row in the hand of a holder, with fence 1."""
    (id,) = add(store, row(**fields))
    (held,) = claim(store, id, types=(fields.get("type", "t"),), alone=alone).rows
    return held


def abandon(store, *rows, alone=False, now=NOW, max_crashes=3):
    """Claim the rows together and let their lease run out."""
    taken = claim(store, *(row.id for row in rows), alone=alone, now=now).rows
    assert len(taken) == len(rows)
    return store.recover(now + 31, max_crashes, 100)


def ids(rows):
    return [row.id for row in rows]
