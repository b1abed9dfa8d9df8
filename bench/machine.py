"""What a benchmark ran on: so much of it as bears on its figures."""

import os
import platform
import re
import sqlite3
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

MISSING = "not installed"


def machine(servers: Mapping[str, Sequence[str | None]]) -> dict[str, str]:
    """Names and values, to be printed. ``servers``: the command that prints each one's version; it begins with
    None where the server is not to be found.
    """
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "load at the start": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "file system of the data": _file_system(tempfile.gettempdir()),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        **{name: _version(command) for name, command in servers.items()},
    }


def as_lines(values: Mapping[str, str]) -> list[str]:
    """A line for each."""
    width = max(len(name) for name in values)
    return [f"{name:<{width}}  {value}" for name, value in values.items()]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _file_system(folder: str) -> str:
    """Its kind. On a tmpfs a commit costs no disk write, so its figures say nothing about durable jobs."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    real = os.path.realpath(folder)
    holding = [(point, kind) for point, kind in mounts if os.path.commonpath([point, real]) == point]
    kind = max(holding, key=lambda mount: len(mount[0]))[1] if holding else "unknown"
    return f"{kind} (a commit writes to no disk)" if kind in {"tmpfs", "ramfs"} else kind


def _version(command: Sequence[str | None]) -> str:
    known = [word for word in command if word is not None]
    if len(known) < len(command):
        return MISSING
    try:
        done = subprocess.run(known, check=False, capture_output=True, text=True, timeout=30)
    except OSError:
        return MISSING
    version = re.search(r"\d+(?:\.\d+)+", done.stdout or done.stderr)
    return version[0] if version else "unknown"
