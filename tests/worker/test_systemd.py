"""What systemd hears of a worker, over its own kind of socket."""

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kqueue.worker.systemd import Systemd
from tests.tubes import await_true
from tests.worker.works import Works

LOGGER = logging.getLogger("kqueue.worker")


@pytest.fixture(params=["file", "abstract"])
def listener(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[socket.socket, str]]:
    """(the socket, as ``NOTIFY_SOCKET`` has it)."""
    monkeypatch.chdir(tmp_path)  # a path of more than 107 bytes cannot be bound
    name = f"@kqueue-{os.getpid()}" if request.param == "abstract" else "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(name.replace("@", "\0") if request.param == "abstract" else name)
        link.settimeout(60)
        yield link, name


def test_it_hears_that_a_worker_is_ready_gets_on_and_stops(
    works: Works, listener: tuple[socket.socket, str]
) -> None:
    link, name = listener
    works.environment |= {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}
    with works.worker() as worker:
        ready = link.recv(4096).decode().splitlines()
        assert ready[0] == "READY=1"
        assert ready[1].startswith("STATUS=store sqlite:///")
        assert [link.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        [child] = worker.await_children(1)
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child}/environ").read_bytes()
        assert worker.stop() == 0
    said = [b""]
    while not said[-1].startswith(b"STOPPING=1"):
        said.append(link.recv(4096))
    assert set(said[1:-1]) <= {b"WATCHDOG=1"}


def test_it_hears_nothing_while_a_loop_hangs(works: Works, listener: tuple[socket.socket, str]) -> None:
    """Then it ends the worker, and starts another one."""
    link, name = listener
    works.environment |= {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}
    works.add("wait", ttr=1)

    def is_silent() -> bool:
        link.settimeout(1.5)
        try:
            link.recv(4096)
        except TimeoutError:
            return True
        return False

    with works.worker("--grace", "0", patch="import kqueue.worker.liveness as l\nl.QUIET_S = 1.0"):
        assert link.recv(4096).startswith(b"READY=1")
        await_true(is_silent)
        works.let_go()
        link.settimeout(60)
        assert link.recv(4096) == b"WATCHDOG=1"


def test_what_is_no_service_of_its_own_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert Systemd({}, LOGGER).every_s is None
    environment = {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1", "HOME": "/"}
    systemd = Systemd(environment, LOGGER)
    assert systemd.every_s is None, "it is asked of another process"
    assert environment == {"HOME": "/"}
    systemd.ready("well")
    systemd.stops()
    assert [record.levelname for record in caplog.records] == ["WARNING"], "once"
