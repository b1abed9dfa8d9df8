"""A real beanstalkd for one test: on a free port of 127.0.0.1, stopped by its own id, its data removed."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence

import greenstalk

#: Seconds after which a server that does not answer counts as broken. Nothing waits that long otherwise.
PATIENCE_S = 240.0


class Beanstalkd:
    """A running server. ``flags`` are its own, such as ``["-z", "200"]``; ``binlog=True`` gives it ``-b``."""

    def __init__(self, *, binlog: bool = False, flags: Sequence[str] = (), unix: bool = False) -> None:
        self.folder = tempfile.mkdtemp(prefix="beanstalkd-")
        self._flags = list(flags)
        self._path = os.path.join(self.folder, "socket") if unix else None
        if binlog:
            os.mkdir(os.path.join(self.folder, "binlog"))
            self._flags += ["-b", os.path.join(self.folder, "binlog")]
        self.port = 0
        try:
            self._process = self._start_on_free_port()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @property
    def url(self) -> str:
        return f"beanstalk+unix://{self._path}" if self._path else f"beanstalk://127.0.0.1:{self.port}"

    @property
    def address(self) -> tuple[str, int] | str:
        return self._path or ("127.0.0.1", self.port)

    @property
    def pid(self) -> int:
        return self._process.pid

    def client(self, tube: str = "default") -> "greenstalk.Client[bytes]":
        """A plain client that uses and watches ``tube``: to look at the server behind KQueue's back."""
        return greenstalk.Client(self.address, encoding=None, use=tube, watch=tube)

    def stop(self) -> None:
        """End it and remove its data. Idempotent."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL, as a crash. Idempotent; the data stays."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Kill it if it runs, and start it on the same port, binlog and flags."""
        self.kill()
        deadline = time.monotonic() + PATIENCE_S
        process = self._start()
        while not self._answers(process):
            if time.monotonic() > deadline:
                raise RuntimeError(f"beanstalkd did not come back on port {self.port}")
            process = self._start()
        self._process = process

    def pause(self) -> None:
        """SIGSTOP: connections are still taken by the kernel, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def drain_mode(self) -> None:
        """SIGUSR1: it takes no more puts."""
        os.kill(self.pid, signal.SIGUSR1)
        self._await_stat("draining", "true")

    def _await_stat(self, name: str, value: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        with self.client() as client:
            while client.stats()[name] != value:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"beanstalkd's {name} never became {value}")

    def _start_on_free_port(self) -> "subprocess.Popen[bytes]":
        # Another process may take the port between our look and the server's bind: then try the next one.
        for _ in range(20):
            self.port = free_port()
            process = self._start()
            if self._answers(process):
                return process
        raise RuntimeError("beanstalkd did not start")

    def _start(self) -> "subprocess.Popen[bytes]":
        if self._path:
            listen = ["-l", f"unix:{self._path}"]
            if os.path.exists(self._path):
                os.unlink(self._path)
        else:
            listen = ["-l", "127.0.0.1", "-p", str(self.port)]
        return subprocess.Popen(
            [executable() or "beanstalkd", *listen, *self._flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _answers(self, process: "subprocess.Popen[bytes]") -> bool:
        """Whether it came up; False if it ended. Raises if it does neither."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                process.wait(timeout=0.005)
                return False
            except subprocess.TimeoutExpired:
                pass
            if self._path and not self._accepts():
                continue
            try:
                with self.client() as client:
                    if client.stats()["pid"] == process.pid:
                        return True
            except (OSError, AssertionError, greenstalk.Error):
                continue
        process.kill()
        process.wait()
        raise RuntimeError("beanstalkd started and does not answer")

    def _accepts(self) -> bool:
        """greenstalk leaves a socket of this kind open that cannot connect."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self._path) == 0


def executable() -> str | None:
    """Where beanstalkd is; None if it is not installed."""
    return shutil.which("beanstalkd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/bin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
