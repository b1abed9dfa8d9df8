"""What is shipped, and what makes the environment: the wheel, and the scripts behind ``make``."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import kqueue

ROOT = Path(__file__).parents[1]
SHIPPED = ["setup.py", "setup.cfg", "README.rst", "LICENSE", "kqueue", "stores"]
PATIENCE_S = 240


def run(command: Sequence[object], **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        stdin=subprocess.DEVNULL,
        **options,
    )


# -- the wheel -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the source tree stays clean."""
    copy = tmp_path_factory.mktemp("source")
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    # Its own backend would be fetched anew each time; the environment of the tests has it.
    built = run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", copy / "dist", copy])
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return path


def test_what_a_package_index_shows_has_no_link_that_leads_nowhere(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        shown = archive.read(name).decode()
    assert "A job queue for Python services" in shown
    assert "promise" in shown
    assert not re.findall(r"<(?![a-z]+:)[^>]*>`_", shown)
    assert "+----" not in shown  # a frame, which longer lines would break


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel in it and nothing else of ours."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    done = run([*pip, "install", "--no-deps", "--no-index", "--target", folder, wheel])
    assert done.returncode == 0, done.stderr
    return folder


def python(installed: Path, folder: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    """Python in ``folder``, for which the installed wheel comes before the source tree."""
    return run([sys.executable, *args], cwd=folder, env={**os.environ, "PYTHONPATH": str(installed)})


def test_the_wheel_holds_kqueue_and_nothing_else(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    metadata = f"kqueue-{kqueue.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"kqueue", metadata}
    assert len(names) == len(set(names))


def test_the_wheel_holds_every_module(wheel: Path):
    sources = [*(ROOT / "kqueue").rglob("*.py"), *(ROOT / "kqueue" / "stores").rglob("*.py")]  # a link
    expected = {str(path.relative_to(ROOT)) for path in sources} | {"kqueue/py.typed"}
    assert "kqueue/stores/sqlite/store.py" in expected
    assert {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("kqueue/")} == expected


def test_the_wheel_works_without_the_source_tree(installed: Path, tmp_path: Path):
    program = (
        "import kqueue.stores, kqueue.brokers;"
        "queue = kqueue.KQueue(store='sqlite:///jobs.db');"
        "queue.add_job('greet');"
        "print(kqueue.__file__, kqueue.stores.__file__, queue.counts()['ready'])"
    )
    done = python(installed, tmp_path, "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        str(installed / "kqueue" / "__init__.py"),
        str(installed / "kqueue" / "stores" / "__init__.py"),
        "1",
    ]


def test_the_wheel_brings_the_command(installed: Path, tmp_path: Path):
    done = run([installed / "bin" / "kqueue", "--version"], cwd=tmp_path, env={"PYTHONPATH": str(installed)})
    assert (done.returncode, done.stdout) == (0, f"kqueue {kqueue.__version__}\n")


def test_the_version_is_said_once_over(installed: Path, tmp_path: Path):
    program = "import importlib.metadata, kqueue; print(importlib.metadata.version('kqueue') == kqueue.__version__)"
    assert python(installed, tmp_path, "-c", program).stdout == "True\n"


def test_stores_under_its_own_name_is_refused(tmp_path: Path):
    done = run([sys.executable, "-c", "import stores"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "kqueue.stores" in done.stderr


def test_a_users_own_package_stores_is_left_alone(installed: Path, tmp_path: Path):
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "__init__.py").write_text("mine = True\n")
    done = python(installed, tmp_path, "-c", "import kqueue.stores, stores; print(stores.mine)")
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


# -- the scripts behind make ---------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of stand-ins, and of what a shell script needs: the only folder on their path."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ["sh", "env", "dirname"]:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def stand_in(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def script(name: str, *args: object, programs: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return run([ROOT / "scripts" / name, *args], env={"PATH": str(programs), **environment})


@pytest.mark.parametrize(
    ("behaves", "said"),
    [
        ("exit 127", "install Python 3.11 or newer"),
        ('case "$2" in *version_info*) exit 1;; esac', "older than Python 3.11"),
        ('case "$2" in *ensurepip*) exit 1;; esac', "apt-get install python3-venv"),
    ],
)
def test_an_environment_that_cannot_be_made_is_one_line(programs: Path, tmp_path: Path, behaves: str, said: str):
    fake = stand_in(programs, "fake-python", behaves)
    done = script("make-venv", fake, tmp_path / "venv", programs=programs)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()


@pytest.mark.proof  # make test makes one, on a new machine
def test_an_environment_is_made(tmp_path: Path):
    folder = tmp_path / "venv"
    done = run([ROOT / "scripts" / "make-venv", sys.executable, folder])
    assert done.returncode == 0, done.stderr
    assert run([folder / "bin" / "python", "-c", "import pip"]).returncode == 0


def test_a_package_that_only_root_may_install_is_one_line(programs: Path):
    stand_in(programs, "id", "echo 1000")
    stand_in(programs, "apt-get", "exit 1")
    done = script("apt-install", "beanstalkd", "the tests", programs=programs)
    assert done.returncode == 1
    assert "apt-get install beanstalkd" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_package_lists_are_fetched_only_when_the_package_is_not_found(programs: Path, tmp_path: Path):
    log = tmp_path / "log"
    stand_in(programs, "id", "echo 0")
    stand_in(programs, "apt-get", f'echo "$1" >>{log}; [ "$1" = update ] || [ "$(wc -l <{log})" -gt 1 ]')
    (programs / "wc").symlink_to(shutil.which("wc") or "wc")
    assert script("apt-install", "beanstalkd", "the tests", programs=programs).returncode == 0
    assert log.read_text().split() == ["install", "update", "install"]
    assert script("apt-install", "beanstalkd", "the tests", programs=programs).returncode == 0
    assert log.read_text().split() == ["install", "update", "install", "install"]


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_a_beanstalkd_that_cannot_be_had_stops_only_a_ci(programs: Path, ci: str, status: int):
    done = script("get-beanstalkd", programs=programs, CI=ci)
    assert done.returncode == status
    assert "apt-get install beanstalkd" in done.stderr


def test_ci_runs_the_tests_and_a_part_of_the_proof_from_any_folder(tmp_path: Path, programs: Path):
    stand_in(programs, "make", 'echo "$* in $(pwd)"')
    path = f"{programs}:{os.environ['PATH']}"
    done = run([ROOT / ".ci" / "run"], cwd=tmp_path, env={"PATH": path})
    assert done.stdout == f"test in {ROOT}\nproof MINUTES=20 in {ROOT}\n"
