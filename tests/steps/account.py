"""The account of one case: which invariants it breaks, from its ledger and from what is left. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.torture.ledger import Record


@dataclass
class Left:
    """What is there once everything has been run."""

    #: State by id.
    rows: dict[str, str] = field(default_factory=dict)
    #: Entries of the tubes.
    entries: int = 0
    #: Payloads that have no job, and jobs that have none of theirs.
    stray_payloads: list[str] = field(default_factory=list)


@dataclass
class Account:
    """What happened in one case."""

    records: Sequence[Record]
    left: Left

    def runs(self) -> Counter[str]:
        """Runs by label."""
        return Counter(record["label"] for record in self._all("run"))

    def labels(self) -> dict[str, str]:
        """Of the ids that have run."""
        return {record["id"]: record["label"] for record in self._all("run")}

    def broken(self, clean: "Account | None") -> list[str]:
        """The invariants that do not hold, each with what breaks it. ``clean``: the same without a fault."""
        return [
            *self._lost(),
            *self._unexpected(),
            *self._repeated(clean),
            *self._after_delete(),
            *self._rest(clean),
        ]

    def _lost(self) -> list[str]:
        """I1 and I8: what was acknowledged ends by its delete, or dead where that is due."""
        acknowledged = self._ids("added") | self._ids("refused", "taken")
        ended = {record["id"] for record in self._all("ends")} | self._ids("unwanted")
        dead = {id for id, state in self.left.rows.items() if state == "dead"}
        return [
            *(f"I1: {id} was acknowledged and is gone" for id in acknowledged - ended - set(self.left.rows)),
            *(f"I8: {id} was brought back and did not run" for id in self._ids("revived") - ended),
            *(f"I8: {self.labels().get(id)} {id} is dead" for id in dead - self._may_die()),
        ]

    def _may_die(self) -> set[str]:
        raising = {id for id, label in self.labels().items() if label.startswith("raise")}
        return (self._ids("doomed") | raising) - self._ids("revived")

    def _unexpected(self) -> list[str]:
        """I6: what runs was added, once, and is unchanged; and nothing that was refused."""
        labels = {label for record in self._all("wants") for label in record["labels"]}
        ids = Counter(self.labels().values())
        return [
            *(f"I6: {record} is not what was added" for record in self._all("run") if not record["right"]),
            *(f"I6: {label} was never added" for label in set(ids) - labels),
            *(f"I6: {label} was added {count} times" for label, count in ids.items() if count > 1),
            *(f"I6: {id} was refused and runs" for id in self._ids("refused", "not_taken") & set(self.labels())),
        ]

    def _repeated(self, clean: "Account | None") -> list[str]:
        """I3 and I7."""
        handed = Counter((record["id"], record["fence"]) for record in self._all("run"))
        broken = [f"I3: {key} was handed out {count} times" for key, count in handed.items() if count > 1]
        if clean is not None:
            labels = self.labels()
            allowed = Counter(labels.values()) | clean.runs()
            for struck in self._all("struck"):
                allowed.update(labels[id] for id in struck["ids"] if id in labels)
            broken += [f"I7: {label} ran {count} times" for label, count in (self.runs() - allowed).items()]
        return broken

    def _after_delete(self) -> list[str]:
        """I5."""
        deleted: set[str] = set()
        broken = []
        for record in self.records:
            if record["what"] == "deleted":
                deleted |= set(record["ids"])
            elif record["what"] == "run" and record["id"] in deleted:
                broken.append(f"I5: {record['id']} runs after its delete")
        return broken

    def _rest(self, clean: "Account | None") -> list[str]:
        """I2 and I9: nothing is left but the dead. And an operation ends only with what we promise."""
        waiting = {id: state for id, state in self.left.rows.items() if state != "dead"}
        raised = [record for record in self._all("raised") if not (record["ours"] and clean is not None)]
        return [
            *([f"I2: left behind: {waiting}"] if waiting else []),
            *([f"I9: {self.left.entries} entries are left in the tubes"] if self.left.entries else []),
            *(f"I1: {stray}" for stray in self.left.stray_payloads),
            *(f"the operation ended with {record['error']}" for record in raised),
        ]

    def _all(self, what: str) -> list[Record]:
        return [record for record in self.records if record["what"] == what]

    def _ids(self, what: str, name: str = "ids") -> set[str]:
        return {id for record in self._all(what) for id in record[name]}
