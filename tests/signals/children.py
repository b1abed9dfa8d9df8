"""Programs of the tests that may hang: run in a process of their own, watched, and ended by its own id."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Seconds without a line after which a program hangs.
PATIENCE_S = 240.0


def seen_by(module: str, *arguments: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
    """The JSON object that ``python -m module`` prints as its last line. One that hangs fails the test, and says
    where it stood still.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            text = _read(process, patience_s)
        finally:
            if process.poll() is None:
                process.kill()
            status = process.wait()
            assert process.stdout is not None
            process.stdout.close()
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    *_, last = text.splitlines() or [""]
    assert status == 0, f"it ended with {status}, after {last!r}:\n{said[-8000:]}"
    seen: dict[str, Any] = json.loads(last)
    return seen


def _read(process: "subprocess.Popen[bytes]", patience_s: float) -> str:
    """All that it prints. One that says nothing for so long is ended by SIGABRT, and then says where it stands."""
    assert process.stdout is not None
    descriptor, text = process.stdout.fileno(), b""
    deadline = time.monotonic() + patience_s
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if selector.select(deadline - time.monotonic()):
                chunk = os.read(descriptor, 2**16)
                if not chunk:
                    return text.decode()
                text += chunk
                deadline = time.monotonic() + patience_s
    process.send_signal(signal.SIGABRT)
    process.wait()
    return text.decode()
