"""When to try again: pure functions of counts and errors. Any jitter is added by the caller, never here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from random import Random
from typing import Any, TypeAlias

from kqueue.model import checks, times
from kqueue.model.times import Duration

#: Seconds before a server that failed is asked again: doubling from the first to the last.
FIRST_BACKOFF_S = 1.0
LAST_BACKOFF_S = 30.0
#: Seconds that an exponential delay grows to, unless it says otherwise.
LONGEST_DELAY_S = 3600.0
#: Seconds until a job that has failed once runs again, unless its queue or its type says otherwise.
RETRY_DELAY_S = 30.0
#: Failed runs until a job is dead, unless its queue or its type says otherwise. With the delay above, and as it
#: grows, they are some 18 days: no outage of a weekend kills a job.
MAX_TRIES = 30
#: By how much a growing delay is shorter or longer: jobs that failed together do not come back together.
GROWING_JITTER = 0.05
#: Seconds that it grows to: with its jitter never more than a day.
GROWN_S = 86400.0 / (1 + GROWING_JITTER)


@dataclass(frozen=True, slots=True)
class Delay:
    """Seconds until a failed job runs again. Made by :func:`fixed` and :func:`exponential`."""

    #: After the first failed run.
    first: float
    #: So many times as long after each further one,
    factor: float
    #: but never longer than this.
    most: float
    #: The part of it by which the real delay may be shorter or longer, 0..1.
    jitter: float

    def bare(self, failures: int) -> float:
        """After ``failures`` failed runs, 1 or more; without jitter."""
        try:
            return min(self.most, self.first * self.factor ** (failures - 1))
        except OverflowError:
            return self.most if self.first else 0.0


def fixed(seconds: float, *, jitter: float = 0.0) -> Delay:
    """The same delay after each failed run.

    ``jitter``: 0..1; with 0.1 the real delay is any between 0.9 and 1.1 times ``seconds``.
    """
    seconds = checks.number("seconds", seconds, 0)
    return Delay(seconds, 1.0, seconds, checks.part("jitter", jitter))


def exponential(first: float, factor: float = 2.0, *, most: float = LONGEST_DELAY_S, jitter: float = 0.0) -> Delay:
    """``first`` seconds after the first failed run, ``factor`` times as many after each further one.

    ``factor``: at least 1. ``most``: seconds, at least ``first``; it grows no further. ``jitter``: 0..1; with 0.1
    the real delay is any between 0.9 and 1.1 times the bare one, also where that is ``most``.
    """
    first = checks.number("first", first, 0)
    most = checks.number("most", most, first)
    return Delay(first, checks.number("factor", factor, 1), most, checks.part("jitter", jitter))


def growing(first: float) -> Delay:
    """What a bare number means as a ``retry_delay``: ``first`` seconds after the first failed run, twice as many
    after each further one, up to a day, with a little jitter. 0 stays 0.
    """
    return exponential(first, most=max(first, GROWN_S), jitter=GROWING_JITTER)


#: Of a queue for which nothing else is said.
GROWING = growing(RETRY_DELAY_S)

#: Called with the number of failed runs, this one with them, and what was raised, or None if nothing was.
DelayFunction: TypeAlias = Callable[[int, BaseException | None], Duration]
#: Seconds; what :func:`fixed` or :func:`exponential` made; a list of seconds; or a function.
AnyDelay: TypeAlias = Duration | Delay | Sequence[Duration] | DelayFunction
#: Classes as ``except`` takes them.
ErrorClasses: TypeAlias = type[BaseException] | Sequence[type[BaseException]]


class Rule(StrEnum):
    """What a policy does about an error."""

    #: A failed try; again after the delay, unless the tries are used up.
    RETRY = "retry"
    #: Dead at once.
    FINAL = "final"
    #: Again after the delay, at no cost of a try.
    GIVE_BACK = "give back"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What becomes of a job whose run failed.

    ``max_tries``: failed runs until it is dead; None: no end.
    ``delay``: until it runs again; by default 30 seconds, doubled by each failed run up to a day. A number of
    seconds, which stays; what :func:`~kqueue.fixed` or :func:`~kqueue.exponential` made; a list of seconds, of
    which the last repeats; or a function that returns seconds, called with the number of failed runs, this one
    with them, and what the handler raised (None if it raised nothing).
    ``final``: errors after which it is dead at once, a class or several. ``give_back``: those after which it is
    given back for the delay, at no cost of a try. Of two classes the one nearer to the error's own counts, so that
    ``final=OSError, give_back=ConnectionError`` does what it says.

    >>> RetryPolicy(max_tries=5, delay=exponential(1, most=600, jitter=0.1), give_back=ConnectionError)

    Raises ``ValueError`` or ``TypeError`` for bad arguments.
    """

    max_tries: int | None = MAX_TRIES
    delay: AnyDelay = GROWING
    final: ErrorClasses = ()
    give_back: ErrorClasses = ()

    def __post_init__(self) -> None:
        if self.max_tries is not None:
            checks.whole("max_tries", self.max_tries, 1)
        object.__setattr__(self, "delay", checked_delay("delay", self.delay))
        for name in ("final", "give_back"):
            object.__setattr__(self, name, checks.error_classes(name, getattr(self, name)))
        both = [cls.__name__ for cls in self._classes(Rule.FINAL) if cls in self._classes(Rule.GIVE_BACK)]
        if both:
            raise ValueError(f"give_back: {both[0]} is final already; an error is either")

    def is_used_up(self, failures: int) -> bool:
        """Whether ``failures`` failed runs are all that a job may have."""
        return self.max_tries is not None and failures >= self.max_tries

    def bare_delay(self, failures: int, error: BaseException | None = None) -> float:
        """Seconds until the next run after ``failures`` failed ones (1 or more), without jitter.

        Raises what a function of the user's raises, and ``ValueError`` or ``TypeError`` if it returns nonsense.
        """
        delay = self.delay
        if isinstance(delay, Delay):
            return delay.bare(failures)
        if isinstance(delay, Sequence):
            return times.seconds("delay", delay[min(failures, len(delay)) - 1], 0)
        return times.seconds("delay", delay(failures, error) if callable(delay) else delay, 0)

    @property
    def jitter(self) -> float:
        """The part of the bare delay by which the real one may be shorter or longer, 0..1."""
        return self.delay.jitter if isinstance(self.delay, Delay) else 0.0

    def rule_for(self, error: BaseException) -> Rule:
        """What is to be done about ``error``: by the first class of its own, then its bases, that has a rule."""
        for cls in type(error).__mro__:
            for rule in (Rule.FINAL, Rule.GIVE_BACK):
                if cls in self._classes(rule):
                    return rule
        return Rule.RETRY

    def _classes(self, rule: Rule) -> Sequence[type[BaseException]]:
        classes = self.final if rule is Rule.FINAL else self.give_back
        return () if isinstance(classes, type) else classes


def checked_delay(name: str, value: object) -> AnyDelay:
    """``value`` as :class:`RetryPolicy` keeps it. Raises ``ValueError`` or ``TypeError`` that says ``name``."""
    if isinstance(value, Delay):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if not value:
            raise ValueError(f"{name}: a list of seconds has at least one, got {value!r}")
        return tuple(times.seconds(name, one, 0) for one in value)
    if callable(value):
        checks.takes(name, value, "the number of failed runs and the error", (1, None))
        function: DelayFunction = value
        return function
    return times.seconds(name, value, 0)


def checked_retry_delay(name: str, value: object) -> AnyDelay:
    """As :func:`checked_delay`, but that a bare number grows: see :func:`growing`."""
    delay = checked_delay(name, value)
    return growing(delay) if isinstance(delay, float | int) else delay


# What the add of a job says of its retries is kept in its row, among its own options: ``max_tries``, and
# ``retry_delay`` as the fields of a Delay or as a list of seconds. Nobody reads it before a run has failed.


def own_retries(max_tries: object, retry_delay: object) -> dict[str, object]:
    """As JSON has them; what is None is left out. Raises ``ValueError`` or ``TypeError``."""
    said: dict[str, object] = {}
    if max_tries is not None:
        said["max_tries"] = checks.whole("max_tries", max_tries, 1)
    if retry_delay is not None:
        if callable(retry_delay):
            raise TypeError(
                "retry_delay: of one job it is kept in the store, which holds no function; give seconds, a list of"
                " them, fixed() or exponential(), or set the function for its type"
            )
        delay = checked_retry_delay("retry_delay", retry_delay)
        said["retry_delay"] = asdict(delay) if isinstance(delay, Delay) else delay
    return said


def policy_of(own: Mapping[str, Any], of_type: RetryPolicy) -> RetryPolicy:
    """The policy of a job: that of its type, but for what its own add said."""
    said = {"max_tries": own["max_tries"]} if "max_tries" in own else {}
    if "retry_delay" in own:
        delay = own["retry_delay"]
        said["delay"] = Delay(**delay) if isinstance(delay, dict) else delay
    return replace(of_type, **said) if said else of_type


def jittered(seconds: float, jitter: float, random: Random) -> float:
    """``seconds``, shorter or longer by up to the part ``jitter`` of them, evenly."""
    return seconds * (1 + random.uniform(-jitter, jitter)) if jitter else seconds


def backoff(failures: int) -> float:
    """Seconds to leave a server alone that failed ``failures`` times in a row: 1, 2, 4, ... 30."""
    return min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(max(0, failures - 1), 10))
