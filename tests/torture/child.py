"""A process of the torture: started, frozen, continued and ended by its own id."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_ROOT = Path(__file__).parents[2]
#: Seconds after which a process that is asked to end counts as hung.
PATIENCE_S = 240.0


class Child:
    """Runs ``python -m module arguments``; what it says goes to ``log``."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path, ledger: Path) -> None:
        """It makes ``ledger`` once it can be told, and struck by, what it must survive."""
        self.log = log
        self._ledger = ledger
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

    def is_ready(self) -> bool:
        return self._ledger.exists()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def freeze(self) -> None:
        """SIGSTOP; when it returns no thread of it runs."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def tell(self, command: str) -> None:
        """One line, which a thread of it does. Nothing if it has just ended."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{command}\n".encode())
            self._process.stdin.flush()

    def strike(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

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


def obey(command: Callable[[str], None] | None = None) -> None:
    """For a child: do what the referee tells, beside all else; and die when it is gone, however it went."""

    def listen() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with open(0, closefd=False) as lines:
            for line in lines:
                if command is not None:
                    command(line.strip())
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
