"""What KQueue aims at beside the others. Pure."""

from collections.abc import Sequence

from bench.figures import Goal, Row, ratio


def to_fastest(
    what: str, rows: Sequence[Row], ours: str, peers: Sequence[str], bound: float, which: str = "peer"
) -> list[Goal]:
    """How the row named ``ours`` compares with the fastest of ``peers``: no goal if either was not measured."""
    by_name = {row.name: row for row in rows}
    if ours not in by_name or not peers:
        return []
    fastest = max((by_name[name] for name in peers), key=lambda row: row.median)
    reached = ratio(by_name[ours].values, fastest.values)
    return [Goal(f"{what}: to the fastest {which} ({fastest.name})", reached, ">=", bound)]
