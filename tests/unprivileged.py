"""A Python that may write only what the permissions of files let it write, also where the tests run as root."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

#: PR_CAPBSET_DROP of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what root gets by an exec then lacks them.
_DROP = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, sys.argv[1:])
"""
#: Answers each line, a Python expression in which ``queue`` is one on the store, with its value or its error.
_ASKED = """
import sys
from kqueue import KQueue
queue = KQueue(sys.argv[1])
for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
queue.close()
"""


def python(*args: str) -> list[str]:
    """A command: this Python, with ``args``, without the right to pass permissions over."""
    return [sys.executable, "-c", _DROP, sys.executable, *args]


class Asked:
    """A process that has a queue, and answers."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, expression: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{expression}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().rstrip("\n")


@contextmanager
def asked(store: str, before: Sequence[str] = ()) -> Iterator[Asked]:
    """One such process, with a queue on ``store``. ``before``: the command that is to start it."""
    command = [*before, *python("-c", _ASKED, store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Asked(process)
    assert process.returncode == 0


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """All in the folder, and the folder, may only be read meanwhile."""
    paths = [*folder.iterdir(), folder]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(modes[path] & ~0o222)
    try:
        yield
    finally:
        for path in reversed(paths):
            with suppress(FileNotFoundError):
                path.chmod(modes[path])
