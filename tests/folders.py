"""Where the tests write: in memory where there is room, since a sync to a slow disk takes longer than the test.

One folder for a whole run, with all that pytest, the servers and the programs under test make in the temporary
folder. It goes at the end of the run, and so do those of runs that were killed.
"""

import os
import shutil
import tempfile
from pathlib import Path

#: The folder that a run makes its own in, whatever room there is.
CHOICE = "TEST_FOLDER"
#: Where Linux has a file system in memory.
_MEMORY = Path("/dev/shm")
#: Bytes that a run takes at most there, with a reserve. What it holds at a time is less than a fifth of it.
_ROOM = 2 << 30
_PREFIX = "kqueue-tests-"


def parent() -> Path:
    """Where the folder of a run belongs."""
    chosen = os.environ.get(CHOICE)
    if chosen:
        return Path(chosen).resolve()
    usual = Path(tempfile.gettempdir())
    within_a_run = any(part.startswith(_PREFIX) for part in usual.parts)
    return _MEMORY if _has_room() and not within_a_run else usual


def use() -> Path:
    """Make the folder of this run; this process and its children take it for the usual temporary folder."""
    above = parent()
    _remove_left_over(above)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=above))
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder


def remove(folder: Path) -> None:
    """Of this run, with all that it left."""
    shutil.rmtree(folder, ignore_errors=True)


def _has_room() -> bool:
    """On its file system, and in the memory itself: a host may give it more than it has."""
    try:
        free = shutil.disk_usage(_MEMORY).free
        meminfo = Path("/proc/meminfo").read_text()
    except OSError:
        return False
    available = next((line.split()[1] for line in meminfo.splitlines() if line.startswith("MemAvailable:")), "0")
    return os.access(_MEMORY, os.W_OK) and min(free, int(available) * 1024) > _ROOM


def _remove_left_over(above: Path) -> None:
    """What runs have left that were killed."""
    for folder in above.glob(f"{_PREFIX}*-*"):
        if not _runs(folder.name.removeprefix(_PREFIX).split("-")[0]):
            remove(folder)


def _runs(process: str) -> bool:
    """Whether there is such a process; also if it cannot be told."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError):
        return True
    return True
