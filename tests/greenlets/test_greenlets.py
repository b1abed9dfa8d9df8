"""Services that run under eventlet or gevent: everything that waits, waits as these want it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.beanstalkd import Beanstalkd
from tests.shop import PATIENCE_S


@pytest.mark.parametrize("is_embedded", [False, True], ids=["beanstalkd", "embedded"])
@pytest.mark.parametrize("library", ["eventlet", "gevent"])
def test_a_patched_service_adds_and_runs_jobs(
    beanstalkd: Beanstalkd, tmp_path: Path, library: str, is_embedded: bool
) -> None:
    urls = [f"sqlite:///{tmp_path}/jobs.db", *([] if is_embedded else [beanstalkd.url])]
    child = [sys.executable, "-W", "ignore", "-m", "tests.greenlets.child", library, *urls]
    done = subprocess.run(child, check=False, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "ids": 40,
        "pointers": 0 if is_embedded else 40,
        "drained": 40,
        "ran": list(range(40)),
        "woken": 1,
        "warnings": [],
    }
