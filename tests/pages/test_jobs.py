"""What the tables of ``docs/jobs.rst`` and ``docs/errors.rst`` say of the code is so."""

import inspect
import re

import kqueue
from kqueue import AddFailed, Job, JobInHand, KQueue, KQueueError, State
from kqueue.model.options import DEFAULT_TTR, OneJobOptions
from tests.pages.blocks import page


def test_each_state_is_in_the_table() -> None:
    section = page("jobs").split("\nStates\n---")[1]
    assert set(re.findall(r"^``(\w+)``  ", section, re.MULTILINE)) == {state.value for state in State}


def test_what_a_handler_may_ask_of_its_job_is_there() -> None:
    fields, in_hand = re.findall(r"``job`` has ``([\w\s]+)``.*?``([\w ]+)``", page("jobs"), re.DOTALL)[0]
    # What a job that was got shows as progress, one in hand has as a call, which tells it.
    public = {name for name, value in inspect.getmembers(Job) if isinstance(value, property)} - {"progress"}
    assert set(fields.split()) == public
    assert set(in_hand.split()) | public == {
        name for name, value in inspect.getmembers(JobInHand) if isinstance(value, property)
    }
    calls = dict(re.findall(r"^``job\.(\w+)\((.*?)\)``  ", page("jobs"), re.MULTILINE))
    assert len(calls) == 6
    assert all(hasattr(JobInHand, name) for name in fields.split())
    for name, said in calls.items():
        parameters = list(inspect.signature(getattr(JobInHand, name)).parameters.values())[1:]
        named = [part.split("=")[0].lstrip("*") for part in said.split(", ") if part]
        assert named == [one.name for one in parameters]


def test_the_defaults_of_an_add_and_of_a_run() -> None:
    (said,) = re.findall(r"``add_job\((type.*?)\)``", page("jobs"), re.DOTALL)
    named = [part.partition("=")[0] for part in re.split(r",\s*", said)]
    assert set(named) - {"*"} == {"type", "payload", *OneJobOptions.__annotations__}
    assert f" ttr={DEFAULT_TTR:.0f}," in said
    (said,) = re.findall(r"``run_jobs\((.*?)\)``", page("jobs"))
    parameters = list(inspect.signature(KQueue.run_jobs).parameters.values())[1:]
    assert said == ", ".join(f"{one.name}={one.default}" for one in parameters)


def test_each_error_is_in_the_table_below_what_it_is() -> None:
    classes = {
        name: value
        for name in kqueue.__all__
        if isinstance(value := getattr(kqueue, name), type) and issubclass(value, KQueueError)
    }
    rows = re.findall(r"^``(\w+)``  +(\S.*)$", page("errors"), re.MULTILINE)
    assert {name for name, _ in rows} == set(classes) - {"KQueueError"}
    for name, text in rows:
        above = classes[name].__mro__[1].__name__
        assert text.startswith(f"a ``{above}``") == (above != "KQueueError"), name
    assert {"taken", "not_taken", "unknown"} <= vars(AddFailed("")).keys()
