"""That what a test leaves open is found."""

import gc
import socket
import sqlite3
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests import left_open


@pytest.mark.parametrize("open_one", [socket.socket, lambda: sqlite3.connect(":memory:")], ids=["socket", "sqlite"])
def test_what_is_left_is_told_when_it_is_collected(open_one: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    ring = SimpleNamespace(of=open_one())
    ring.itself = ring
    del ring
    gc.collect()
    assert [one.exc_type for one in told] == [ResourceWarning]


def test_a_process_that_a_test_starts_tells_of_what_it_leaves(capfd: pytest.CaptureFixture[str]) -> None:
    subprocess.run([sys.executable, "-c", "import socket; socket.socket()"], check=True)
    told = capfd.readouterr().err
    assert "ResourceWarning: unclosed <socket.socket" in (left_open.told_by_children(told) or "")
    assert left_open.told_by_children("all is well\n") is None
