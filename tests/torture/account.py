"""The account of all jobs: pure, from the ledgers and from what the referee saw.

Of the words: a run is a *duplicate* if the one before it did not end with its handler asking for another. A job
is *lost* if its add was acknowledged, or it ran, and no row is left of it though the last of its runs did not end
in its delete. A delete of which nobody can tell whether it was done has been done if the row is gone. A job that
ran is *unexpected* if nobody added such a one with such a payload, or its add was refused.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tests.torture.ledger import Record
from tests.torture.plan import ASKED, DELETES, is_late

#: (job id, fence).
Claim: TypeAlias = tuple[str, int]
#: Jobs whose records are shown.
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """What the referee saw."""

    #: (id, fence) of each claim that was unsettled in the store just before a fault that could end it.
    at_risk: Sequence[Claim] = ()
    kills: int = 0
    freezes: int = 0
    restarts: int = 0
    #: Signals that raised, steps of the clock.
    strikes: int = 0
    #: Jobs that were found dead in the end, and were brought back.
    dead: int = 0
    #: Processes that ended without being told to, or not when they were told to.
    fallen: int = 0
    #: Pointers whose jobs came to their end by others; each is gone within an hour.
    spare: int = 0
    seconds_to_drain: float = 0.0
    #: What was left in the end, by place: rows, and ready, reserved, delayed, buried entries.
    left: Mapping[str, int] | None = None
    #: Ids of the rows that were left.
    rows: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Account:
    """What became of all jobs. Numbers of jobs where nothing else is said."""

    acknowledged: int
    #: Not acknowledged, since their producer was killed or got no answer, and there all the same.
    unacknowledged: int
    run: int
    #: Handlers started.
    runs: int
    lost: int
    unexpected: int
    #: Claims that ran twice.
    same_fence_twice: int
    #: Runs.
    duplicated: int
    #: Duplicates after a run that was neither at risk in a fault nor overslept.
    unexplained: int
    #: Runs that slept past their TTR as planned; each may cost a duplicate.
    overslept: int
    #: Whose worker was struck in the middle of a run, and which a later run finished.
    recovered: int
    #: Settles that were refused because another holder had the job.
    leases_lost: int
    #: Settles that were not, though another holder had it.
    stolen: int
    seen: Seen
    #: What is known of the first few jobs whose promise was broken, and the faults there were.
    evidence: Sequence[Record] = ()

    @property
    def bound(self) -> int:
        """Duplicates at most."""
        return len(self.seen.at_risk) + self.overslept

    def broken(self) -> list[str]:
        """Each promise that was not kept, in words."""
        seen = self.seen
        zeros = {
            "jobs were lost": self.lost,
            "runs were unexpected": self.unexpected,
            "claims had a fence that another had": self.same_fence_twice,
            "duplicates came without a fault": self.unexplained,
            "jobs were settled by a holder whose lease was lost": self.stolen,
            "processes fell by themselves or hung": seen.fallen,
            **{f"{place} were left": count for place, count in (seen.left or {}).items()},
        }
        found = [f"{count} {what}" for what, count in zeros.items() if count]
        if self.duplicated > self.bound:
            found.append(f"{self.duplicated} runs were duplicates, and at most {self.bound} may be")
        return found


class Additions:
    """What producers added, and whether it was acknowledged."""

    def __init__(self, records: Iterable[Record]) -> None:
        #: Payload digests by id.
        self.acknowledged: dict[str, str] = {}
        self._unknown: dict[str, str] = {}
        pending: dict[str, list[str]] = {}
        for record in records:
            match record["what"]:
                case "adding":
                    pending[record["add"]] = record["digests"]
                case "added":
                    self.acknowledged |= zip(record["ids"], pending.pop(record["add"]), strict=True)
                case "failed":
                    self._fail(record, pending.pop(record["add"]))
        #: Digests of calls that were under way when their producer was killed; their ids nobody knows.
        self._under_way = Counter(digest for digests in pending.values() for digest in digests)

    def _fail(self, record: Record, digests: list[str]) -> None:
        taken, unknown = set(record["taken"]), set(record["unknown"])
        # Ids of one call ascend in the order of its payloads.
        ids = sorted(taken | unknown | set(record["not_taken"]))
        for id, digest in zip(ids, digests, strict=bool(ids)):
            if id in taken:
                self.acknowledged[id] = digest
            elif id in unknown:
                self._unknown[id] = digest

    def explain(self, id: str, digest: str) -> bool:
        """Whether somebody added this job with this payload, acknowledged or not. Ask once for each job."""
        if id in self.acknowledged:
            return self.acknowledged[id] == digest
        if id in self._unknown:
            return self._unknown[id] == digest
        self._under_way[digest] -= 1
        return self._under_way[digest] >= 0


class Runs:
    """What workers did."""

    def __init__(self, records: Iterable[Record]) -> None:
        runs: list[Record] = []
        #: What each run ended with, by (id, fence).
        self.ends: dict[Claim, str] = {}
        #: Runs that were told that another holder has the job; and of these, those that were told it may be so.
        self.refused: set[Claim] = set()
        self._unknown: set[Claim] = set()
        #: When each run was about to settle, and runs that slept past their lease and settled all the same.
        self._ended: dict[Claim, float] = {}
        self._kept: set[Claim] = set()
        for record in records:
            match record["what"]:
                case "run":
                    runs.append(record)
                case "end":
                    self.ends[_claim(record)] = record["act"]
                    self._ended[_claim(record)] = record["time"]
                case "lost":
                    self.refused.add(_claim(record))
                    if record["unknown"]:
                        self._unknown.add(_claim(record))
                case "kept":
                    self._kept.add(_claim(record))
        self.count = len(runs)
        #: Runs by job, each in the order of their fences.
        self.by_job: defaultdict[str, list[Record]] = defaultdict(list)
        for run in sorted(runs, key=lambda run: run["fence"]):
            self.by_job[run["id"]].append(run)
        self.overslept = {_claim(run) for run in runs if is_late(run["act"])}
        #: Runs that came twice under one fence.
        self.twice = [claim for claim, count in Counter(map(_claim, runs)).items() if count > 1]

    def finished(self) -> set[str]:
        """Jobs whose last run ended in their delete, and was not told that another holder has them for sure."""
        last = {id: _claim(runs[-1]) for id, runs in self.by_job.items()}
        refused = self.refused - self._unknown
        return {id for id, claim in last.items() if self.ends.get(claim) in DELETES and claim not in refused}

    def stolen(self) -> list[Claim]:
        """Late settles that were accepted though the job had begun to run under a higher fence."""
        return [
            (id, fence)
            for id, fence in self._kept
            for run in self.by_job[id]
            if run["fence"] > fence and run["start"] < self._ended[id, fence]
        ]

    def struck(self) -> set[str]:
        """Jobs that a run of did not come to its end, or too late."""
        unended = {run["id"] for runs in self.by_job.values() for run in runs if _claim(run) not in self.ends}
        return unended | {id for id, _ in self.refused}

    def repeated(self) -> list[Claim]:
        """Runs after which another came that the handler had not asked for: a duplicate each."""
        earlier = [_claim(run) for runs in self.by_job.values() for run in runs[:-1]]
        return [claim for claim in earlier if self.ends.get(claim) not in ASKED]


def reckon(records: Iterable[Record], seen: Seen) -> Account:
    """The account of a torture that has ended."""
    records = list(records)
    added, runs = Additions(records), Runs(records)
    finished = runs.finished()
    lost = (added.acknowledged.keys() | runs.by_job.keys()) - finished - seen.rows
    unexpected = {id for id, of_job in runs.by_job.items() if _is_unexpected(added, of_job)}
    repeated, stolen = runs.repeated(), runs.stolen()
    unexplained = set(repeated) - set(seen.at_risk) - runs.overslept
    suspects = {*lost, *unexpected, *(id for id, _ in [*unexplained, *stolen, *runs.twice])}
    return Account(
        acknowledged=len(added.acknowledged),
        unacknowledged=len(runs.by_job.keys() - added.acknowledged.keys()),
        run=len(runs.by_job),
        runs=runs.count,
        lost=len(lost),
        unexpected=len(unexpected),
        same_fence_twice=len(runs.twice),
        duplicated=len(repeated),
        unexplained=len(unexplained),
        overslept=len(runs.overslept),
        recovered=len(runs.struck() & finished),
        leases_lost=len(runs.refused),
        stolen=len(stolen),
        seen=seen,
        evidence=[record for id in sorted(suspects)[:SHOWN] for record in records if _tells_of(record, id)]
        + [record for record in records if suspects and record["what"] == "fault"],
    )


def _claim(record: Record) -> Claim:
    return record["id"], record["fence"]


def _tells_of(record: Record, id: str) -> bool:
    return record.get("id") == id or id in record.get("ids", ())


def _is_unexpected(added: Additions, runs: list[Record]) -> bool:
    digests = {run["digest"] for run in runs}
    return len(digests) > 1 or not added.explain(runs[0]["id"], digests.pop())
