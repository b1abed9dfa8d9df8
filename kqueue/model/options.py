"""What holds for all jobs of a type, set once by ``queue.options(type, ...)``; and what an add says of its own."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, TypeAlias, TypedDict

from kqueue.model import checks, times
from kqueue.model.job import Priority
from kqueue.model.retry import AnyDelay, Delay, RetryPolicy, checked_retry_delay, own_retries
from kqueue.model.times import Duration, Instant
from kqueue.model.wording import shown

#: Of a type for which nothing says otherwise.
DEFAULT_RETRY = RetryPolicy()
#: Seconds that a job may run before others may take it, unless its type or its add says otherwise.
DEFAULT_TTR = 60.0


@dataclass(frozen=True, slots=True)
class TypeOptions:
    """What holds for the jobs of a type. Those of a type that nothing was set for are the queue's defaults."""

    #: Of an add that gives none: 0..2**32-1, lower first.
    priority: int = Priority.NORMAL
    #: Seconds until a job may run, where its add gives none.
    delay: float = 0.0
    #: Seconds that a job may run before others may take it, where its add gives none.
    ttr: float = DEFAULT_TTR
    #: What becomes of a job whose run failed.
    retry: RetryPolicy = DEFAULT_RETRY
    #: Seconds that a finished job is kept as ``done``; 0: it is deleted at once.
    keep_done: float = 0.0
    #: Seconds that a unique key is taken at least, where the add gives none. It is always taken while its job waits
    #: or runs.
    unique_for: float = 0.0
    #: Whether a job is deleted when its handler returns, where that does not say itself.
    delete_on_success: bool = False
    #: Seconds since it was added, or was to run at first, after which a job whose run fails is dead; None: none.
    max_age: float | None = None
    #: Seconds that a finished job is kept at least, for who waits for its end.
    tombstone: float = 0.0


class GivenOptions(TypedDict, total=False):
    """What ``queue.options`` takes: the fields of :class:`TypeOptions`, and two parts of a policy by themselves."""

    priority: Priority | str | int
    delay: Duration
    ttr: Duration
    retry: RetryPolicy
    #: Instead of ``retry``: its delay, in any form that a policy takes; but a bare number grows, up to a day.
    retry_delay: AnyDelay
    #: Instead of ``retry``: failed runs until a job is dead; None: no end.
    max_tries: int | None
    keep_done: Duration
    tombstone: Duration
    unique_for: Duration
    delete_on_success: bool
    max_age: Duration | None


def _policy(value: object) -> RetryPolicy:
    if not isinstance(value, RetryPolicy):
        raise TypeError(f"retry: expected a RetryPolicy, got {shown(value)}")
    return value


#: Each option's check.
CHECKS: Mapping[str, Callable[[Any], object]] = {
    "priority": checks.priority,
    "delay": lambda value: times.seconds("delay", value, 0),
    "ttr": lambda value: times.seconds("ttr", value, 1),
    "retry": _policy,
    "retry_delay": lambda value: checked_retry_delay("retry_delay", value),
    "max_tries": lambda value: None if value is None else checks.whole("max_tries", value, 1),
    "keep_done": lambda value: times.seconds("keep_done", value, 0),
    "tombstone": lambda value: times.seconds("tombstone", value, 0),
    "delete_on_success": lambda value: checks.flag("delete_on_success", value),
    "unique_for": lambda value: times.seconds("unique_for", value, 0),
    "max_age": lambda value: None if value is None else times.seconds_above_0("max_age", value),
}
#: The options that are parts of a retry policy, and what the policy calls them.
POLICY_PARTS = {"retry_delay": "delay", "max_tries": "max_tries"}
#: What an option cannot stand beside.
RIVALS = {"retry": tuple(POLICY_PARTS), **dict.fromkeys(POLICY_PARTS, ("retry",))}


class Options:
    """The options of all types of a queue.

    Its mappings are replaced, never changed, so that loops of other threads may read them meanwhile.
    """

    def __init__(self, default: TypeOptions) -> None:
        """``default``: of a type that nothing is set for."""
        self.default = default
        self._by_type: Mapping[str, TypeOptions] = MappingProxyType({})
        #: The seconds that finished jobs are kept, of the types that keep them: looked at for each delete.
        self.kept: Mapping[str, float] = {}
        #: What was given for each type, by name.
        self._given: dict[str, frozenset[str]] = {}

    def of(self, type: str) -> TypeOptions:
        """The options that hold for ``type``."""
        return self._by_type.get(type, self.default)

    def set(self, type: str, given: Mapping[str, Any]) -> TypeOptions:
        """Set what is given, all of it or nothing; returns all options of ``type``.

        Raises ``ValueError`` for an unknown name and for what was set before, and as the checks do.
        """
        checked: dict[str, Any] = {
            checks.one_of("options", name, CHECKS): CHECKS[name](value) for name, value in given.items()
        }
        before = self._given.get(type, frozenset())
        for name in given:
            _refuse_second(type, name, before, given)
        options = self.of(type)
        parts: dict[str, Any] = {part: checked.pop(name) for name, part in POLICY_PARTS.items() if name in checked}
        if parts:
            checked["retry"] = replace(options.retry, **parts)
        self._given[type] = before | given.keys()
        self._by_type = MappingProxyType({**self._by_type, type: replace(options, **checked)})
        kept = {name: max(one.keep_done, one.tombstone) for name, one in self._by_type.items()}
        self.kept = {name: seconds for name, seconds in kept.items() if seconds}
        return self.of(type)

    def keeps(self, type: str, own: str | None) -> float:
        """Seconds that a job is kept once it is done. ``own``: its own options, as its row has them."""
        if own is None:
            return self.kept.get(type, 0.0)
        said, options = json.loads(own), self.of(type)
        seconds: float = max(said.get("keep_done", options.keep_done), said.get("tombstone", options.tombstone))
        return seconds


def _refuse_second(type: str, name: str, before: frozenset[str], given: Mapping[str, Any]) -> None:
    if name in before:
        raise ValueError(f"{name}: an option of a type is set once, and that of {type} was set before")
    for rival in RIVALS.get(name, ()):
        if rival in before or rival in given:
            raise ValueError(f"{name}: {type} has {rival}; set a whole policy by retry, or parts of it, not both")


# -- of the jobs of an add -----------------------------------------------------------------------------------

#: As ``queue.options`` takes it, but no function: it is kept in the store.
RetryDelay: TypeAlias = Duration | Delay | Sequence[Duration]


class JobOptions(TypedDict, total=False):
    """What ``queue.add_jobs`` takes beside the payloads. What is not given, or None, is as its type says."""

    priority: Priority | str | int | None
    #: Until it may run.
    delay: Duration | None
    #: When it may run at first, instead of a delay.
    run_at: Instant | None
    #: Until others may take it.
    ttr: Duration | None
    #: Jobs of its type with the same one count together where the type has limits.
    limit_key: str | None
    #: Failed runs until it is dead.
    max_tries: int | None
    #: Until it runs again after a failed run.
    retry_delay: RetryDelay | None
    #: How long it is kept once it is done.
    keep_done: Duration | None
    #: The same, at least.
    tombstone: Duration | None


class OneJobOptions(JobOptions, total=False):
    """What ``queue.add_job`` takes beside the payload."""

    #: The key that no other job of its type is to have.
    unique: str | None
    #: How long the key is taken at least.
    unique_for: Duration | None


@dataclass(frozen=True, slots=True)
class New:
    """One of several jobs that ``queue.add_jobs`` is given, with what holds for it alone. What is None is as the
    call says, or else its type.

    >>> queue.add_jobs("mail", [New("a", unique="a"), New("b", delay=60, max_tries=3)])

    What it takes beside the payload is what ``queue.add_job`` takes; it is checked when it is added.
    """

    payload: object = None
    priority: Priority | str | int | None = None
    delay: Duration | None = None
    run_at: Instant | None = None
    ttr: Duration | None = None
    unique: str | None = None
    unique_for: Duration | None = None
    limit_key: str | None = None
    max_tries: int | None = None
    retry_delay: RetryDelay | None = None
    keep_done: Duration | None = None
    tombstone: Duration | None = None

    def options(self, of_all: Mapping[str, Any]) -> dict[str, Any]:
        """Its own, and those ``of_all`` where it says nothing."""
        own = {name: value for name in _OPTIONS if (value := getattr(self, name)) is not None}
        if "delay" in own or "run_at" in own:  # they are one thing
            of_all = {name: value for name, value in of_all.items() if name not in {"delay", "run_at"}}
        return {**of_all, **own}


#: Of these, what is kept in the row beside its retries, with what checks it.
_OWN_CHECKS = {name: CHECKS[name] for name in ("keep_done", "tombstone")}


def own_checked(max_tries: object, retry_delay: object, **others: object) -> str | None:
    """What an add says over the options of its type, as a row keeps it: a JSON object, or None where it says
    nothing, as nearly all do. ``others``: ``keep_done`` and ``tombstone``. Raises ``ValueError`` or ``TypeError``.
    """
    said = own_retries(max_tries, retry_delay)
    said |= {name: _OWN_CHECKS[name](value) for name, value in others.items() if value is not None}
    return json.dumps(said, separators=(",", ":")) if said else None


_OPTIONS = [field.name for field in fields(New) if field.name != "payload"]


def check_names(call: str, given: Mapping[str, object], options: type) -> None:
    """Raises ``TypeError``, as Python does for an argument that is not there."""
    for name in given:
        if name not in options.__annotations__:
            known = ", ".join(options.__annotations__)
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}; it takes {known}")
