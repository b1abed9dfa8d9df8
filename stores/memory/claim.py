"""Claims of a memory store, and what its gates let through. Called under the store's lock."""

from collections.abc import Collection

from kqueue.contracts.admission import Admission, Claimer, Limit
from kqueue.contracts.budget import Budget
from kqueue.contracts.repair import Due
from kqueue.contracts.runs import Claim, Selection
from kqueue.model.job import Row, State
from kqueue.stores.gates import MOST_HELD, Gates, free, free_at, gate_of
from kqueue.stores.memory.gate_counts import MemoryCounts, Starts, passing
from kqueue.stores.memory.rows import MemoryRows, waiting_by
from kqueue.stores.transitions import admitted, claimed


def claim(
    stored: MemoryRows, starts: Starts, selection: Selection, budget: Budget, owner: str, *, now: float, alone: bool
) -> Claim:
    """Candidates are looked at lazily, in order, until the window is full."""
    stopped: list[Row] = []
    wanted = None if selection.ids is None else stored.wanted(selection.ids, selection.types)
    if wanted is not None and selection.pointed:
        wanted = [row for row in wanted if selection.serves(row.id, row.priority)]
    candidates = stored.ready(selection.types) if wanted is None else waiting_by(wanted, now)
    gates = Gates(selection.limits, MemoryCounts(stored, starts, now), selection.holder)
    if selection.limits:
        candidates = passing(stored, candidates, gates, stopped, MOST_HELD if wanted is None else None)
    found, cut = budget.fit(candidates)
    blame = alone and len(found) == 1
    rows = [claimed(row, owner, now, blame, gate=gates.while_running(row.type)) for row in found]
    for row in (*rows, *stopped):
        stored.write(row)
    for limit in selection.limits:
        started = sum(row.type == limit.type for row in rows)
        if limit.starts is not None and started:
            starts.add(limit, now, started)
    later = {row.id: row.run_at for row in wanted or () if row.state == State.DELAYED and row.run_at > now}
    return Claim([row._replace(history=None, progress=None) for row in rows], cut, later, len(stopped))


def admit(
    stored: MemoryRows,
    starts: Starts,
    limit: Limit,
    keys: Collection[str] | None,
    *,
    now: float,
    put_at: float | None,
    most: int,
    holder: Claimer | None,
) -> Admission:
    """Let held rows through: at the gate of the type first."""
    dues: list[Due] = []
    times: list[float | None] = []
    counts = MemoryCounts(stored, starts, now)
    for key in (None, *sorted(stored.held_keys(limit.type) if keys is None else set(keys))):
        gate = gate_of(limit.type, key)
        waiting = stored.held(gate)
        places = min(free(limit, key, counts, holder) - counts.admitted(gate), most - len(dues))
        for row in waiting[: max(0, int(places))]:
            stored.write(admitted(row, put_at, now))
            dues.append(Due.of(stored.by_id[row.id]))
        if stored.held(gate):
            times.append(free_at(limit, key, counts))
    return Admission(dues, min((time for time in times if time is not None), default=None))
