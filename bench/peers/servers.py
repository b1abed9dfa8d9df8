"""A Redis and a PostgreSQL for the peers: on free ports of 127.0.0.1, ended by their process id, data removed."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.beanstalkd import free_port

#: Seconds after which a server that does not answer counts as broken.
PATIENCE_S = 60.0
#: Seconds between two attempts to reach a server that starts.
AGAIN_S = 0.05
#: PostgreSQL refuses to run as root; Debian's package brings this user.
POSTGRES_USER = "postgres"
#: Where Debian keeps PostgreSQL's programs, which are not in the path.
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


#: What is needed of it.
POSTGRES_PROGRAMS = ("initdb", "postgres", "pg_isready")


class Server:
    """A process and its folder. ``stop`` ends both."""

    def __init__(
        self, command: Sequence[str], folder: Path, answers: Callable[[], bool], user: str | None = None
    ) -> None:
        """Starts it, and waits until it ``answers``."""
        self._name = Path(command[0]).name
        self._folder = folder
        self._process = subprocess.Popen(
            command, cwd=folder, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._await(answers)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Idempotent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _await(self, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._name} did not start on 127.0.0.1")
            time.sleep(AGAIN_S)


class Redis:
    """With the append-only file; ``appendfsync`` is ``always`` or ``everysec``."""

    def __init__(self, appendfsync: str) -> None:
        self.port = free_port()
        self._appendfsync = appendfsync
        folder = Path(tempfile.mkdtemp(prefix="redis-"))
        listen = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        command = [redis_path() or "redis-server", *listen, "--appendonly", "yes", "--appendfsync", appendfsync]
        self._server = Server(command, folder, self._answers)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def empty(self) -> None:
        """Forget all."""
        assert self._say("FLUSHALL") == b"+OK\r\n"

    @contextmanager
    def unsynced(self) -> Iterator[None]:
        """Meanwhile it answers before the disk has anything."""
        assert self._say("CONFIG SET appendfsync no") == b"+OK\r\n"
        yield
        assert self._say(f"CONFIG SET appendfsync {self._appendfsync}") == b"+OK\r\n"

    def stop(self) -> None:
        self._server.stop()

    def _answers(self) -> bool:
        with suppress(OSError):
            return self._say("PING") == b"+PONG\r\n"
        return False

    def _say(self, command: str) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(100)


class Postgres:
    """With its own defaults: ``fsync`` and ``synchronous_commit`` on."""

    def __init__(self) -> None:
        programs = postgres_folder() or Path()
        self.port = free_port()
        user = POSTGRES_USER if os.geteuid() == 0 else None
        folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        if user is not None:
            shutil.chown(folder, user)
        self._ready = [str(programs / "pg_isready"), "--host", "127.0.0.1", "--port", str(self.port), "--quiet"]
        try:
            made = ["--auth", "trust", "--username", POSTGRES_USER, "--encoding", "UTF8", "--no-locale"]
            initdb = [str(programs / "initdb"), "--pgdata", str(folder / "data"), *made]
            subprocess.run(initdb, check=True, cwd=folder, user=user, stdout=subprocess.DEVNULL)
            places = [
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                f"port={self.port}",
                "-c",
                "unix_socket_directories=",
            ]
            command = [str(programs / "postgres"), "-D", str(folder / "data"), *places]
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._server = Server(command, folder, self._answers, user)

    @property
    def url(self) -> str:
        return f"postgresql://{POSTGRES_USER}@127.0.0.1:{self.port}/postgres"

    def stop(self) -> None:
        self._server.stop()

    def _answers(self) -> bool:
        return subprocess.run(self._ready, check=False).returncode == 0


def redis_path() -> str | None:
    """Where redis-server is; None if it is not installed."""
    return shutil.which("redis-server")


def postgres_folder() -> Path | None:
    """Where postgres and initdb are; None if they are not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted((path / "bin" for path in DEBIAN_POSTGRES.glob("*")), reverse=True)
    return next((folder for folder in folders if all((folder / name).exists() for name in POSTGRES_PROGRAMS)), None)
