"""What ``docs/configuration.rst`` shows is run as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

from kqueue import KQueue
from kqueue.config.keys import LIMITS, OPTIONS, QUEUE, WORKER
from tests.pages.blocks import blocks, page

TEXT = page("configuration")


def said(command: str, folder: Path) -> str:
    """On its output and on its errors."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KQUEUE_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        command,
        check=False,
        shell=True,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return re.sub(r"in \d+\.\d\d s", "in 0.01 s", done.stdout)


def test_the_dialogue_goes_as_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "kqueue.toml").write_text(blocks(TEXT, "toml")[0])
    (tmp_path / "shop.py").write_text(blocks(TEXT, "python")[0])
    dialogues = "".join(blocks(TEXT, "console"))
    parts = re.split(r"^\$ (.*)\n", dialogues, flags=re.MULTILINE)[1:]
    assert len(parts) > 2
    for command, expected in zip(parts[::2], parts[1::2], strict=True):
        assert said(command, tmp_path) == expected, command


def test_the_page_names_every_key() -> None:
    table = TEXT.split("where                   keys\n")[1].split("\n\n")[0]
    top, worker, types = table.split("``[")
    for part, keys in [(top, QUEUE), (worker, WORKER), (types, (*OPTIONS, *LIMITS))]:
        assert {key.name for key in keys} <= set(re.findall(r"\w+", part))


def test_the_options_and_their_defaults_are_those_of_the_code() -> None:
    section = TEXT.split("The options of ``KQueue``\n---")[1].split("A file\n---")[0]
    table = dict(re.findall(r"^``(\w+)``  +(\S+(?: MiB)?)  ", section, re.MULTILINE))
    code = KQueue.__init__.__kwdefaults__ | {"store": "(none)", "broker": None}
    said = {"max_payload": "15 MiB", "max_result": "1 MiB", "logger": "``kqueue``", "store": "(none)"}
    assert table == {
        name: said.get(name, f"``{value}``" if value is None else str(value)) for name, value in code.items()
    }
