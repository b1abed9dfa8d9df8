"""Figures as values: rounds of one run, their medians, and the ratios between them. Pure.

The machine's speed changes from second to second, and from one machine to the next. So contenders run in turn
within each round, a ratio is taken between figures of the same round, and what counts is the median of these
ratios. A rate by itself says more about the machine than about what ran on it.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

#: What a contender returns of one round: most of them a rate.
Figure = TypeVar("Figure")

#: Rounds that a figure in the README has at least.
ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """One contender: its figure of each round."""

    name: str
    values: list[float]
    #: What to know beside the figure, such as what a crash would lose.
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Table:
    """Contenders that ran in the same rounds. The first is what the others are compared with."""

    title: str
    unit: str
    rows: list[Row]

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def ratio(self, name: str, to: str) -> float:
        """The median of the ratios of one contender to another, round by round."""
        return ratio(self.row(name).values, self.row(to).values)


@dataclass(frozen=True)
class Goal:
    """One figure that was aimed at."""

    what: str
    figure: float
    #: ``">="`` or ``"<="``.
    relation: str
    bound: float
    unit: str = ""

    @property
    def is_met(self) -> bool:
        return self.figure >= self.bound if self.relation == ">=" else self.figure <= self.bound


@dataclass
class Findings:
    """All that one benchmark found."""

    question: str
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    #: Sentences: what was missing, what bounds a figure.
    notes: list[str] = field(default_factory=list)
    #: Too long to print: for plots.
    details: list[Table] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The same as plain values; :func:`from_json` reads them."""
        return asdict(self)


def from_json(values: Mapping[str, Any]) -> Findings:
    """What :meth:`Findings.as_json` wrote."""
    return Findings(
        values["question"],
        [_table(one) for one in values["tables"]],
        [Goal(**goal) for goal in values["goals"]],
        list(values["notes"]),
        [_table(one) for one in values["details"]],
    )


def ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios, round by round."""
    return statistics.median(one / other for one, other in zip(values, others, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that at least ``share`` (0..1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered), -int(-share * len(ordered) // 1)) - 1)]


def interleaved(
    contenders: Mapping[str, Callable[[], Figure]], rounds: int, tell: Callable[[str], object] = len
) -> dict[str, list[Figure]]:
    """What each contender returned in each round. Every other round goes backwards, so that none always runs
    after another. ``tell`` is called with what is about to run.
    """
    figures: dict[str, list[Figure]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in names if number % 2 == 0 else reversed(names):
            tell(f"round {number + 1} of {rounds}: {name}")
            figures[name].append(contenders[name]())
    return figures


def table(title: str, unit: str, figures: Mapping[str, list[float]], **notes: str) -> Table:
    """A table of what :func:`interleaved` measured."""
    return Table(title, unit, [Row(name, values, notes.get(name, "")) for name, values in figures.items()])


def _table(values: Mapping[str, Any]) -> Table:
    return Table(values["title"], values["unit"], [Row(**row) for row in values["rows"]])
