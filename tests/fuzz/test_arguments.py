"""Whatever is given for an argument, only what is documented comes: a value, ``ValueError`` or ``TypeError`` that
names the argument, or an error of KQueue's own.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from kqueue import Filter, JobInHand, KQueue, KQueueError, RetryPolicy, Snooze, exponential, fixed
from tests.fuzz.calls import CALLS, ELSEWHERE, FILTER, IN_HAND, MADE, NEEDED, POLICY, Arguments
from tests.fuzz.drawing import FEW, MANY, fuzz
from tests.fuzz.values import anything, duration

#: How an error names what it is about: ``ttr: ...``, ``payload["a"][3]: ...``.
NAMED = re.compile(r"(\w+)( of .+?)?(\[.*\])*: ", re.DOTALL)
#: What an argument is called in an error, where that is not its name.
ALSO = {
    "job": "id",
    "job_id": "id",
    "job_ids": "ids",
    "payloads": "payload",
    "function": "handler",
    "after": "id",
    "threads": "loops",
}


def drawn(name: str, arguments: Arguments) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the arguments, and those without which it is no call: each as it may be, or as it may not."""
    needed = NEEDED.get(name, ())
    each = {argument: of | anything for argument, of in arguments.items()}
    return st.fixed_dictionaries(
        {argument: each[argument] for argument in needed},
        optional={argument: of for argument, of in each.items() if argument not in needed},
    )


def tried(call: Callable[..., object], given: dict[str, Any], also: tuple[str, ...] = ()) -> None:
    """Call it. Raises ``AssertionError`` for an error that nobody expects."""
    try:
        found = call(**given)
        if isinstance(found, Iterator):
            for _ in islice(found, 3):
                pass
    except KQueueError:
        pass
    except (ValueError, TypeError) as error:
        names = {call.__name__, *given, *(ALSO[name] for name in given if name in ALSO), *also}
        said = NAMED.match(str(error))
        if said is None or said[1] not in names:
            raise AssertionError(f"{call.__name__} with {shown(given)} names none: {_told(error)}") from error
    except Exception as error:
        raise AssertionError(f"{call.__name__} with {shown(given)}: {_told(error)}") from error


def shown(given: dict[str, Any]) -> str:
    """Of numbers of thousands of digits Python makes no text."""
    try:
        return repr(given)[:300]
    except ValueError:
        return f"something huge among {', '.join(given)}"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error!s:.300}"


@pytest.fixture(params=["memory", "sqlite", "mongod"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KQueue]:
    if request.param == "mongod":
        server = request.getfixturevalue("mongod")
        url = server.url(request.getfixturevalue("mongo_database"))
    else:
        url = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/jobs.db?synchronous=OFF"
    with KQueue(url, retry_delay=0, max_tries=1) as queue:
        yield queue


def test_every_public_call_is_drawn() -> None:
    """One that is new gets its arguments in ``tests/fuzz/calls.py``."""
    public = {name for name, value in vars(KQueue).items() if callable(value) or isinstance(value, classmethod)}
    assert {name for name in public if not name.startswith("_")} == CALLS.keys() | ELSEWHERE.keys()
    in_hand = {name for name, value in vars(JobInHand).items() if inspect.isfunction(value)}
    assert {name for name in in_hand if not name.startswith("_")} == IN_HAND.keys()


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.proof)])
def test_calls_of_a_queue(queue: KQueue, examples: int) -> None:
    queue.add_jobs("mail", range(3))
    for name, arguments in CALLS.items():

        def check(given: dict[str, Any], name: str = name) -> None:
            if name in {"run_jobs", "work"} and not _ends(given):
                return
            # Anew: each option, handler, limit and schedule is set once. The store stays open.
            another = KQueue(queue.store, retry_delay=0, max_tries=1)
            another.add_handler("other", JobInHand.delete)
            tried(getattr(another, name), given)

        fuzz(examples, drawn(name, arguments), check)


def _ends(given: dict[str, Any]) -> bool:
    """Whether it ends soon, with threads that a machine has."""
    threads = given.get("threads")
    return given.setdefault("wait", False) is not True and not (isinstance(threads, int) and threads > 2)


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.proof)])
def test_calls_of_a_job_in_hand(queue: KQueue, examples: int) -> None:
    errors: list[BaseException] = []
    calls: list[tuple[str, dict[str, Any]]] = []

    @queue.handler("mail")
    def mail(job: JobInHand) -> None:
        name, given = calls[-1]
        try:
            tried(getattr(job, name), given)
        except AssertionError as error:
            errors.append(error)

    for name, arguments in IN_HAND.items():

        def check(given: dict[str, Any], name: str = name) -> None:
            calls.append((name, given))
            queue.purge_jobs("mail")
            queue.add_job("mail")
            assert queue.run_jobs(count_limit=1).count == 1
            if errors:
                raise errors.pop()

        fuzz(examples, drawn(name, arguments), check)


#: Values that are made of arguments, without a queue.
MAKERS: dict[str, tuple[Callable[..., object], Arguments]] = {
    "KQueue": (KQueue, MADE),
    "Filter": (Filter, FILTER),
    "RetryPolicy": (RetryPolicy, POLICY),
    "Snooze": (Snooze, {"seconds": duration}),
    "fixed": (fixed, {"seconds": duration}),
    "exponential": (exponential, dict.fromkeys(inspect.signature(exponential).parameters, duration)),
}


@pytest.mark.parametrize("examples", [FEW * 4, pytest.param(MANY, marks=pytest.mark.proof)])
@pytest.mark.parametrize("name", MAKERS)
def test_what_is_made_of_arguments(name: str, examples: int) -> None:
    make, arguments = MAKERS[name]
    needed = [one.name for one in inspect.signature(make).parameters.values() if one.default is one.empty]
    each = {argument: of | anything for argument, of in arguments.items()}
    strategy = st.fixed_dictionaries(
        {argument: each[argument] for argument in needed if argument in each},
        optional={argument: of for argument, of in each.items() if argument not in needed},
    )
    fuzz(examples, strategy, lambda given: tried(make, given))
