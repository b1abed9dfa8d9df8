"""The survey: each operation at each place, once without a fault, then once for each call and fate.

A fault may lead to calls that were not made without it: the driver sends again, a claim is read back, a transaction
is rolled back. Those are points too: they are failed in their turn, after the fault that led to them, until no call
is new.

A survey may draw its faults by lot: then each is made with a chance of ``share``, and a fault that only another
leads to with the chance that both are.

And it may look which calls in the text are reached at all. For that each way that leads through stores and brokers
to a call is failed once, in the first case that goes it, and so are those that only such a fault leads to.
"""

import random
import re
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

from tests.flows.processes import KILLED, run_in_child
from tests.steps.account import Account, Left
from tests.steps.house import House, Place
from tests.steps.operations import Operation
from tests.steps.tap import Call, Fate, Key, Plan, Tap

#: What changes nothing. What a command to beanstalkd does is done, whether its reply is read or not.
READS = re.compile(
    r"sqlite: (SELECT|WITH|PRAGMA data_version|PRAGMA synchronous)|mongo: (find|aggregate|distinct|hello)\b"
    r"|tube: .* of reply to"
)
#: Repairs after which everything must have been run: by the process that lives on, by another that serves all
#: types, and twice more for what was to be retried.
ROUNDS = 4
#: Seconds. Longer than a lease, the grace and every delay.
A_WHILE = 20_000.0


@dataclass
class Findings:
    """Of one operation at one place."""

    points: set[Key] = field(default_factory=set)
    calls: set[Call] = field(default_factory=set)
    runs: int = 0
    broken: list[str] = field(default_factory=list)


class Survey:
    """Surveys each operation once, whoever asks."""

    def __init__(
        self, places: Mapping[str, Place], tap: Tap, folder: Path, share: float = 1.0, seed: int = 0
    ) -> None:
        """``share``: of the faults, each drawn by the lot of ``seed``; 1: all of them."""
        self.share, self.seed = share, seed
        self._places = places
        self._tap = tap
        self._folder = folder
        self._numbers = count(1)
        self._found: dict[tuple[str, str], Findings] = {}

    def of(self, place: str, operation: Operation) -> Findings:
        """What was found."""
        key = place, operation.name
        if key not in self._found:
            self._found[key] = self._explore(self._places[place], operation)
        return self._found[key]

    def _explore(self, place: Place, operation: Operation) -> Findings:
        found = Findings()
        clean = self._run(place, operation, {}, None, found)
        if found.broken:
            return found
        found.points = set(self._reached(place))
        # The same for an operation, whichever are surveyed before it.
        chance = random.Random(f"{self.seed} {place.name} {operation.name}")
        plans = deque(self._drawn(chance, _further({}, found.points)))
        while plans:
            plan = plans.popleft()
            self._run(place, operation, plan, clean, found)
            new = {key for key in self._reached(place) if _is_new(key, plan, found.points)}
            found.points |= new
            plans.extend(self._drawn(chance, _further(plan, new)))
        return found

    def look(self, cases: Iterable[tuple[str, Operation]]) -> Findings:
        """Each way to a call is failed once, in whichever case goes it first. No more runs than there are ways in
        the text, and cases.
        """
        found = Findings()
        known: set[tuple[Call, ...]] = set()
        for name, operation in cases:
            place = self._places[name]
            clean = self._run(place, operation, {}, None, found)
            plans = deque(self._to_new(place, {}, known))
            while plans:
                plan = plans.popleft()
                self._run(place, operation, plan, clean, found)
                plans.extend(self._to_new(place, plan, known))
        return found

    def _to_new(self, place: Place, plan: Plan, known: set[tuple[Call, ...]]) -> list[dict[Key, Fate]]:
        """Plans to fail what the last run, under ``plan``, has made by a way that is not ``known``; now it is. And
        what a driver has repeated: what it says after that. None kills: the dead do not tell what they called.
        """
        plans = []
        before: dict[Key, Fate] = {}
        for key, calls in self._tap.points:
            if key in plan:
                before[key] = plan[key]
            elif key.nature.startswith(place.edges) and (calls not in known or _repeats(key, before)):
                known.add(calls)
                plans += [{**before, key: fate} for fate in _fates(key) if fate is not Fate.KILLED]
        return plans

    def _drawn(self, chance: random.Random, plans: Iterator[dict[Key, Fate]]) -> Iterator[dict[Key, Fate]]:
        return (plan for plan in plans if chance.random() < self.share)

    def _reached(self, place: Place) -> list[Key]:
        keys = [point.key for point in self._tap.points]
        return [key for key in keys if key.nature.startswith(place.edges)]

    def _run(
        self, place: Place, operation: Operation, plan: Plan, clean: Account | None, found: Findings
    ) -> Account:
        """One case, from an empty house to its account."""
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        house = House(place, self._tap, folder, new=operation.new)
        broken = []
        self._tap.points = []
        try:
            operation.arrange(house)
            house.leave()
            if Fate.KILLED in plan.values():
                if run_in_child(lambda: self._act(house, operation, plan)) != KILLED:
                    broken.append("it was not killed")
                house.strike()
            else:
                self._act(house, operation, plan)
                broken += [f"{key} was not reached again" for key in self._tap.unstruck()]
                found.calls |= {call for point in self._tap.points for call in point.calls}
            left = _recover(house, operation, broken)
            account = Account(house.records(), left)
        finally:
            house.leave()
        broken += account.broken(clean)
        found.runs += 1
        told = "; ".join(f"{key} {fate.value}" for key, fate in plan.items()) or "no fault"
        found.broken += [f"{place.name}, {operation.name}: {told}: {what}" for what in broken]
        shutil.rmtree(folder)
        return account

    def _act(self, house: House, operation: Operation, plan: Plan) -> None:
        house.enter(operation.types, opened=operation.opened, timed=operation.timed)
        operation.meanwhile(house)
        with self._tap.listening(plan, house.strike):
            house.attempt(operation.act)


def _is_new(key: Key, plan: Plan, known: set[Key]) -> bool:
    """Whether only a fault leads to it: its nature and site are new, or a driver repeats what failed."""
    if key in known:
        return False
    return _repeats(key, plan) or all((key.nature, key.site) != (one.nature, one.site) for one in known)


def _repeats(key: Key, plan: Plan) -> bool:
    """Whether a driver sends again what failed. It does so once."""
    faults = [(fault.nature, fault.site) for fault in plan]
    is_next = Key(key.nature, key.site, key.earlier - 1) in plan
    return key.nature.startswith("mongo") and faults.count((key.nature, key.site)) == 1 and is_next


def _further(plan: Plan, keys: set[Key]) -> Iterator[dict[Key, Fate]]:
    for key in sorted(keys):
        for fate in _fates(key):
            yield {**plan, key: fate}


def _fates(key: Key) -> tuple[Fate, ...]:
    """A read has no effect, so to fail after it is to fail before it, and to be killed after it is to be killed
    after the last call that had one. Python's sqlite3 gives no error of a close.
    """
    if READS.match(key.nature):
        return (Fate.BEFORE,)
    return (Fate.KILLED,) if key.nature == "sqlite: close" else tuple(Fate)


def _recover(house: House, operation: Operation, broken: list[str]) -> Left:
    """Repair and run all there is, at most so often: the process itself first, if it lives on, then another.
    Returns what is left, and adds to ``broken`` what a queue raises.
    """
    house.acts.pop("interrupt", None)
    left = Left()
    try:
        for queue in islice(house.repairers(), ROUNDS):
            house.clock.advance(A_WHILE)
            house.turn_tubes()
            queue.sweep()
            operation.repair(queue)
            queue.run_jobs()
            left = Left(house.rows(), house.entries(queue), house.stray_payloads())
            if not left.entries and set(left.rows.values()) <= {"dead"}:
                break
    except (Exception, SystemExit) as error:
        broken.append(f"it cannot go on: {error!r}")
    return left
