"""What the pages on retries and options say of the code is so."""

import re

from kqueue import Priority, RetryPolicy, TypeOptions, Verdict
from kqueue.model.options import CHECKS
from kqueue.model.retry import growing
from kqueue.upkeep.sweep import BATCH
from tests.pages.blocks import page


def table(name: str, heading: str) -> dict[str, str]:
    """The first two columns of the rows below the heading, where both say something."""
    rows = page(name).split(heading, 1)[1].split("\n\n", 1)[0]
    return dict(re.findall(r"^``(\w+)``  +(\S+(?: \S+)*)  ", rows, re.MULTILINE))


def test_the_defaults_of_a_policy_are_those_of_the_code() -> None:
    policy = RetryPolicy()
    assert policy.delay == growing(30)
    said = {name: f"``{getattr(policy, name)}``" for name in ("max_tries", "final", "give_back")}
    assert table("retries", "of a policy ") == {**said, "delay": "30, growing"}


def test_the_options_and_their_defaults_are_those_of_the_code() -> None:
    code = TypeOptions()
    said = {"priority": f"``{Priority(code.priority).name.lower()}``"}
    said |= dict.fromkeys(("retry", "retry_delay", "max_tries", "delete_on_success", "max_age"), "the queue's")
    said |= {name: f"{getattr(code, name):g}" for name in ("delay", "ttr", "keep_done", "tombstone", "unique_for")}
    assert table("options", "option  ") == said
    assert set(said) == set(CHECKS)
    assert f"in batches of {BATCH:,}" in page("options")


def test_the_page_names_each_word() -> None:
    for word in Verdict:
        assert f"``Verdict.{word.name}``" in page("retries")
