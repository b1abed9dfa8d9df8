"""What ``docs/proof.rst`` names is there."""

import re

from tests.pages.blocks import ROOT, page


def test_the_proofs_that_it_names_are_there() -> None:
    named = re.findall(r"^``(tests/\S+)``", page("proof"), re.MULTILINE)
    assert len(named) == 10
    for name in named:
        path = ROOT / name
        assert path.is_file() or list(path.glob("test_*.py")), name


def test_the_tortures_are_those_that_were_run() -> None:
    commands = re.findall(r"^    make torture (.*)$", page("proof"), re.MULTILINE)
    assert len(commands) == len(set(commands)) >= 4
    variables = set(re.findall(r"^(\w+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert all({word.partition("=")[0] for word in command.split()} <= variables for command in commands)
