"""What a command of a page says."""

import os
import subprocess
import sys
from pathlib import Path


def said(command: str, folder: Path) -> str:
    """On its output and its errors, whatever its exit status."""
    done = ended(command, folder)
    return done.stdout.replace(str(folder) + "/", "") + done.stderr


def run(command: str, folder: Path, status: int = 0) -> str:
    """Its output; it ends with ``status``."""
    done = ended(command, folder)
    assert done.returncode == status, done.stderr
    return done.stdout


def ended(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KQUEUE_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "KQUEUE_STORE": "sqlite:///jobs.db",
        "COLUMNS": "200",
    }
    return subprocess.run(
        command, check=False, shell=True, cwd=folder, env=environment, capture_output=True, text=True
    )
