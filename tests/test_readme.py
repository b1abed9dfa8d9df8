"""What the README shows is run as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kqueue
from kqueue import KQueue
from kqueue.ids import ID_FORM

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.rst").read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of one language, without their indent."""
    found = re.findall(rf"\.\. code-block:: {language}\n\n((?:(?:    .*)?\n)+)", TEXT)
    return ["\n".join(line[4:] for line in block.rstrip().splitlines()) + "\n" for block in found]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with the README's first queue in it."""
    (tmp_path / "shop.py").write_text(blocks("python")[0])
    return tmp_path


def run(command: str, folder: Path, failing: bool = False) -> str:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KQUEUE_STORE": "sqlite:///jobs.db",
    }
    done = subprocess.run(
        command, check=False, shell=True, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == int(failing), done.stderr
    return done.stdout


def test_the_first_queue_has_at_most_15_lines_and_prints_what_is_said(shop: Path) -> None:
    code = blocks("python")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    assert run("python shop.py", shop) == blocks("text")[0]


def test_fail_retry_look() -> None:
    exec(compile(blocks("python")[1], "README.rst", "exec"), {})


def test_the_queue_with_a_broker_can_be_made() -> None:
    names: dict[str, object] = {"KQueue": KQueue}
    exec(compile(blocks("python")[2], "README.rst", "exec"), names)
    assert isinstance(names["queue"], KQueue)


def follow(dialogue: str, folder: Path) -> None:
    """Run each command of a console block, and compare what it prints. Ids and seconds are new each time."""
    ids: dict[str, str] = {}
    parts = re.split(r"^\$ (.*)\n", dialogue, flags=re.MULTILINE)[1:]
    for command, said in zip(parts[::2], parts[1::2], strict=True):
        if command.startswith("export "):
            continue
        got = run(renamed(command, ids), folder, failing="dead 1," in said)
        ids |= zip(ID_FORM.findall(said), ID_FORM.findall(got), strict=True)
        seconds = re.compile(r"in \d+\.\d\d s")
        expected = seconds.sub("in … s", renamed(said, ids))
        assert seconds.sub("in … s", got).replace(str(folder) + "/", "") == expected


def renamed(text: str, ids: dict[str, str]) -> str:
    return ID_FORM.sub(lambda found: ids[found[0]], text)


def test_the_commands_print_what_is_said(shop: Path) -> None:
    run("python shop.py", shop)
    follow(blocks("console")[0], shop)


def test_the_commands_for_a_dead_job_print_what_is_said(shop: Path) -> None:
    (once,) = re.findall(r"``(KQueue\(.*max_tries=1\))``", TEXT)
    code = (shop / "shop.py").read_text()
    assert 'KQueue(store="sqlite:///jobs.db")' in code
    (shop / "shop.py").write_text(code.replace('KQueue(store="sqlite:///jobs.db")', once))
    follow(blocks("console")[1], shop)


def test_the_crontab_line_runs(shop: Path) -> None:
    run("python shop.py", shop)
    (line,) = re.findall(r"^    \* \* \* \* \*  cd /srv/shop && (.*)$", TEXT, flags=re.MULTILINE)
    command = line.replace("/srv/shop/.venv/bin", str(Path(sys.executable).parent))
    assert command != line
    assert "count 0" in run(f"PATH=/usr/bin:/bin; {command}", shop)


def test_the_options_and_their_defaults_are_those_of_the_code() -> None:
    table = dict(
        re.findall(
            r"^``(\w+)``  +(\S+(?: MiB)?)  ", TEXT.split("Options\n-------")[1].split("``add_job(")[0], re.MULTILINE
        )
    )
    code = KQueue.__init__.__kwdefaults__ | {"store": "(none)", "broker": None}
    said = {"max_payload": "15 MiB", "prefix": "random", "logger": "``kqueue``", "store": "(none)"}
    assert table == {
        name: said.get(name, f"``{value}``" if value is None else str(value)) for name, value in code.items()
    }


def test_every_public_name_is_documented() -> None:
    assert all(getattr(kqueue, name).__doc__ for name in kqueue.__all__)


def test_the_two_commands_are_those_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+) ", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_files_that_the_readme_names_are_there() -> None:
    section = TEXT.split("Where things are in the code")[1]
    for row in re.findall(r"^``([^`]+)``", section, re.MULTILINE):
        first, *others = row.split()
        folder = (ROOT / first).parent
        assert (ROOT / first).exists(), first
        assert all((folder / other).exists() for other in others), row
