"""The clock by which leases are held in a process."""

import subprocess
import sys
import time

import pytest

from kqueue.system.clock import SystemClock

#: Seconds by which a host's clock that counts suspends is ahead of the one that does not.
SUSPENDED_S = 1_000_000
SHOW = (
    "import time; from kqueue.system.clock import SystemClock; print(SystemClock().monotonic() - time.monotonic())"
)


def test_time_in_which_the_host_was_suspended_counts() -> None:
    """A time namespace shows it without a suspend: in there one clock of the two is set ahead."""
    namespace = ["unshare", "--time", "--boottime", str(SUSPENDED_S), "--fork"]
    tried = subprocess.run([*namespace, "true"], check=False, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no time namespace can be made here: {tried.stderr}")
    shown = subprocess.run([*namespace, sys.executable, "-c", SHOW], check=True, capture_output=True, text=True)
    assert float(shown.stdout) > SUSPENDED_S / 2


def test_it_goes_on_and_never_back() -> None:
    clock = SystemClock()
    seen = [clock.monotonic() for _ in range(1000)]
    assert seen == sorted(seen)
    began, began_too = clock.monotonic(), time.monotonic()
    while time.monotonic() <= began_too:
        pass
    assert clock.monotonic() >= began


def test_a_host_without_such_a_clock_has_the_usual_one() -> None:
    lacks = "import time; del time.CLOCK_BOOTTIME; from kqueue.system.clock import steady; "
    lacks += "print(steady is time.monotonic)"
    shown = subprocess.run([sys.executable, "-c", lacks], check=True, capture_output=True, text=True)
    assert shown.stdout == "True\n"
