"""A process of the torture: started, frozen, continued and ended by its own id."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).parents[2]
#: Seconds after which a process that is asked to end counts as hung.
PATIENCE_S = 30.0


class Child:
    """Runs ``python -m module arguments``; what it says goes to ``log``."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=_ROOT,
                stdin=subprocess.PIPE,  # its end tells the child that its parent is gone
                stdout=output,
                stderr=output,
                process_group=0,  # so that Ctrl-C reaches the referee alone
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def freeze(self) -> None:
        """SIGSTOP; when it returns no thread of it runs."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL. Idempotent; works on a frozen one too."""
        if not self.has_ended():
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def end(self) -> bool:
        """Ask it to end after what it is doing; whether it did so cleanly."""
        if not self.has_ended():
            self._process.terminate()
        try:
            # By the signal itself: it had only just been started.
            return self._process.wait(PATIENCE_S) in {0, -signal.SIGTERM}
        except subprocess.TimeoutExpired:
            return False
        finally:
            self.kill()


def end_with_parent() -> None:
    """For a child: die when the referee is gone, however it went."""

    def watch() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
