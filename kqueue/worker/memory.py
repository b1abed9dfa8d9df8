"""How much memory this process has."""

import os
import resource
import sys
from pathlib import Path

#: Bytes in a MiB.
MIB = 2**20
_STATM = Path("/proc/self/statm")


def resident_mib() -> float:
    """Resident memory of this process in MiB: now on Linux, and the most that it ever had elsewhere.

    The second field of ``statm`` is in pages (https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html);
    ``ru_maxrss`` is in KiB, but in bytes on macOS.
    """
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / MIB if sys.platform == "darwin" else most / 1024
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB
