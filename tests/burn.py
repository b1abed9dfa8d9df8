"""Keep every processor busy, and write and sync to the disk without pause, until it is stopped.

    python -m tests.burn [--folder /var/tmp]

To see what rests on a machine's speed: ``make burn`` in one terminal, ``make test`` in another.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path

#: Bytes of each write, and after how many of them the file begins anew.
PIECE = 1 << 20
PIECES = 64


def main() -> None:
    """Until SIGTERM or SIGINT."""
    folder = _arguments().folder
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    cores = os.cpu_count() or 1
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryFile(dir=folder) as file:
        busy = [fork.Process(target=burn, daemon=True) for _ in range(cores)]
        for process in busy:
            process.start()
        print(f"burn: {cores} processes burn, and one writes to {folder}; Ctrl-C ends it", flush=True)
        try:
            write(file.fileno())
        finally:
            for process in busy:
                process.kill()
                process.join()


def burn() -> None:
    """Until it is killed, also when its parent was."""
    parent = os.getppid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while os.getppid() == parent:
        sum(range(1_000_000))


def write(file: int) -> None:
    """For ever."""
    piece = os.urandom(PIECE)
    while True:
        for at in range(PIECES):
            os.pwrite(file, piece, at * PIECE)
            os.fsync(file)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.burn")
    lasting = Path("/var/tmp")  # the usual temporary folder may lie in memory
    usual = lasting if os.access(lasting, os.W_OK) else Path(tempfile.gettempdir())
    parser.add_argument("--folder", type=Path, default=usual, help="on the disk to write to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
