"""What runs tell of themselves, in a memory store. Called under the store's lock."""

from kqueue.contracts.reporting import MOST_LINES, MOST_LOG_BYTES, Report
from kqueue.model.history import LogLine
from kqueue.stores.memory.rows import MemoryRows


def report(stored: MemoryRows, given: Report) -> bool:
    """False, and nothing is written, if its run is settled or another has the job."""
    row = stored.in_hand(given.id, given.fence)
    if row is None:
        return False
    if stored.reported.get(row.id, (0, 0)) >= (given.fence, given.number):
        return True  # it was sent twice
    stored.reported[row.id] = given.fence, given.number
    if given.progress is not None:
        stored.write(row._replace(progress=given.progress))
    before = stored.logs.get(row.id, [])
    first = before[-1].number + 1 if before else 1
    lines = [LogLine(first + place, at, given.tries, text) for place, (at, text) in enumerate(given.lines)]
    if lines:
        stored.logs[row.id] = _last([*before, *lines])
    return True


def _last(lines: list[LogLine]) -> list[LogLine]:
    """As many as are kept."""
    size = 0
    kept = 0
    for line in reversed(lines[-MOST_LINES:]):
        size += len(line.text.encode())
        if size > MOST_LOG_BYTES:
            break
        kept += 1
    return lines[len(lines) - kept :]
