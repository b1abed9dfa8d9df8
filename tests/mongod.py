"""A genuine mongod for the tests: on a free port of 127.0.0.1, stopped by its own id, its data removed.

A replica set of one, since a standalone server has no retried writes and no majority; or a member of one of several
(:mod:`tests.replica_set`).
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from tests.beanstalkd import free_port

#: Where ``make test`` unpacks it.
_UNPACKED = Path(__file__).parents[1] / ".venv" / "mongod" / "fiftyone" / "db" / "bin" / "mongod"
#: Seconds after which a server that does not answer counts as broken. Nothing waits that long otherwise.
PATIENCE_S = 240.0
#: Seconds between two looks at one that becomes the primary: to ask without a pause would keep it from that.
_LOOK_S = 0.02
#: The server's code for a replica set that was made before.
_ALREADY_INITIALIZED = 23
#: And for one that asks who we are, which was made before it did.
_UNAUTHORIZED = 13


#: Where Debian's package ``faketime`` has the library that shifts the clock of a program; that for programs with
#: threads.
_FAKETIME = "faketime/libfaketimeMT.so.1"


class Mongod:
    """A running server, its own primary unless it is not ``alone``.

    With ``shift`` its wall clock is so many seconds ahead of this host's, and can be set: see :meth:`set_clock`.
    """

    def __init__(self, *, alone: bool = True, shift: float | None = None) -> None:
        self.folder = tempfile.mkdtemp(prefix="mongod-")
        self._alone = alone
        self._more_flags: list[str] = []
        self._environment = dict(os.environ)
        self._shift = Path(self.folder, "shift")
        self._write_shift(shift or 0.0)
        if shift is not None:
            self._environment |= {
                "LD_PRELOAD": str(faketime()),
                "FAKETIME_TIMESTAMP_FILE": str(self._shift),
                # Seconds between two looks into that file. At each call of a clock it would be very slow.
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                # The name that older ones read.
                "DONT_FAKE_MONOTONIC": "1",
            }
        try:
            self._process = self._start_on_free_port()
            if alone:
                self._await_primary()
        except BaseException:
            self.stop()
            raise

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, database: str, options: str = "") -> str:
        return f"mongodb://{self.host}/{database}?replicaSet=rs0{options}"

    def client(self, **options: Any) -> MongoClient[dict[str, Any]]:
        """A plain client: to look at the server behind KQueue's back."""
        return MongoClient("127.0.0.1", self.port, directConnection=True, **options)

    def kill(self) -> None:
        """SIGKILL, as a crash. Idempotent; the data stays."""
        process = getattr(self, "_process", None)
        if process is not None:
            process.kill()
            process.wait()
            for name in ("faketime_shm_", "sem.faketime_sem_"):  # what the library leaves of one that was killed
                Path(f"/dev/shm/{name}{process.pid}").unlink(missing_ok=True)

    def restart(self) -> None:
        """Kill it if it runs, and start it on the same port and data."""
        self.kill()
        self._process = self._start()
        if self._alone:
            self._await_primary()

    def set_clock(self, shift: float) -> None:
        """Its clock is so many seconds ahead of this host's once this returns. To be set forward only: the library
        has what waits for a time of day wait on for as long as the clock was set back.
        """
        self._write_shift(shift)
        deadline = time.monotonic() + PATIENCE_S
        with self.client(tz_aware=True) as client:
            while True:
                before = time.time()
                at = client.admin.command("hello")["localTime"].timestamp()
                if before - 1 <= at - shift <= time.time() + 1:
                    return
                if time.monotonic() > deadline:
                    raise RuntimeError(f"its clock is not {shift} s ahead, but {at - before}")
                time.sleep(0.05)

    def ask_for_users(self) -> None:
        """Restart it; from then on a client may do what the roles of its user let it. Make users before."""
        key = Path(self.folder, "key")
        key.write_text("0" * 64)
        key.chmod(0o600)
        self._more_flags = ["--keyFile", str(key)]
        self.restart()

    def step_down(self) -> None:
        """Let it stop being the primary, for a second at least, whatever others are there."""
        with suppress(PyMongoError), self.client() as client:
            client.admin.command("replSetStepDown", 1, force=True)

    def freeze(self) -> None:
        """SIGSTOP: no other can tell it from one that the network has cut off."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it and remove its data. Idempotent."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_shift(self, shift: float) -> None:
        new = self._shift.with_suffix(".new")
        new.write_text(f"{shift:+.3f}s\n")
        new.rename(self._shift)  # so that it never reads half of it

    def _start_on_free_port(self) -> "subprocess.Popen[bytes]":
        # Another process may take the port between our look and the server's bind: then try the next one.
        for _ in range(5):
            self.port = free_port()
            process = self._process = self._start()
            if self._answers(process):
                return process
        raise RuntimeError(f"mongod did not start: {self._log()}")

    def _start(self) -> "subprocess.Popen[bytes]":
        data = Path(self.folder, "data")
        data.mkdir(exist_ok=True)
        flags = (
            f"--port {self.port} --bind_ip 127.0.0.1 --nounixsocket --replSet rs0 --oplogSize 64"
            " --wiredTigerCacheSizeGB 0.25 --setParameter diagnosticDataCollectionEnabled=false"
            " --setParameter enableTestCommands=1"
            # Journals of 8 MB, not of 100: a server takes 25 MB of the disk or the memory, not 300.
            " --wiredTigerEngineConfigString"
            " log=(enabled=true,remove=true,path=journal,compressor=snappy,file_max=8MB)"
        )
        binary = executable() or "mongod"
        # Not --logpath: what the loader says of a missing library must be there too.
        with Path(self.folder, "log").open("wb") as log:
            return subprocess.Popen(
                [binary, "--dbpath", str(data), *flags.split(), *self._more_flags],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )

    def _answers(self, process: "subprocess.Popen[bytes]") -> bool:
        """Whether it came up; False if it ended."""
        deadline = time.monotonic() + PATIENCE_S
        with self.client(serverSelectionTimeoutMS=100) as client:
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    return bool(client.admin.command("serverStatus")["pid"] == process.pid)
                except PyMongoError:
                    continue
        return False

    def _await_primary(self) -> None:
        members = {"_id": "rs0", "members": [{"_id": 0, "host": self.host}]}
        deadline = time.monotonic() + PATIENCE_S
        is_initiated = False
        with self.client(serverSelectionTimeoutMS=100) as client:
            while time.monotonic() < deadline:
                try:
                    if not is_initiated:
                        _initiate(client, members)
                        is_initiated = True
                    if client.admin.command("hello")["isWritablePrimary"]:
                        return
                except OperationFailure:
                    raise
                except PyMongoError:  # it is busy
                    continue
                time.sleep(_LOOK_S)
        raise RuntimeError(f"mongod did not become primary: {self._log()}")

    def _log(self) -> str:
        return Path(self.folder, "log").read_text(errors="replace")[-2000:]


def _initiate(client: MongoClient[dict[str, Any]], members: dict[str, Any]) -> None:
    try:
        client.admin.command("replSetInitiate", members)
    except OperationFailure as error:
        if error.code not in {_ALREADY_INITIALIZED, _UNAUTHORIZED}:
            raise


def executable() -> str | None:
    """Where mongod is; None if it is not to be found."""
    named = os.environ.get("KQUEUE_MONGOD")
    if named:
        return named
    return shutil.which("mongod") or (str(_UNPACKED) if _UNPACKED.exists() else None)


def faketime() -> Path | None:
    """Where the library is that shifts the clock of a program; None if it is not to be found."""
    folders = [Path("/usr/lib"), *Path("/usr/lib").glob("*-linux-gnu*")]
    return next((folder / _FAKETIME for folder in folders if (folder / _FAKETIME).exists()), None)
