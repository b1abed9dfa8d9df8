"""``kqueue list``: how many jobs there are, and the same look again and again."""

import json
import os
import pty
import re
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from kqueue import JobInHand, KQueue
from tests.shop import PATIENCE_S, Shop

#: What moves the cursor, wipes, hides.
CONTROL = re.compile(r"\x1b\[[0-9?]*[A-Za-z]")


def test_how_many_by_type(shop: Shop, queue: KQueue) -> None:
    ids = [*queue.add_jobs("greet", range(130)), *queue.add_jobs("part", [1, 2, 3])]
    count = ["list", "--state", "ready", "--count"]
    lines = [line.split() for line in shop.kqueue(*count).stdout.splitlines()]
    assert lines == [["type", "ready"], ["greet", "130"], ["part", "3"], ["all", "types", "133"]]
    assert shop.kqueue(*count, "--type", "part").stdout.splitlines() == ["type  ready", "part      3"]
    assert shop.kqueue(*count, "--type", "other").stdout == "no ready jobs\n"
    # By what only a look at each job tells.
    assert json.loads(shop.kqueue(*count, "--after", ids[100], "--json").stdout) == {
        "count": 32,
        "types": {"greet": 29, "part": 3},
    }
    assert json.loads(shop.kqueue(*count, "--limit", "7", "--json").stdout)["count"] == 7
    assert json.loads(shop.kqueue(*count, "--added-since", "1h", "--json").stdout)["count"] == 133
    assert json.loads(shop.kqueue(*count, "--added-before", "1h", "--json").stdout)["count"] == 0
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert json.loads(shop.kqueue(*count, "--added-before", tomorrow, "--json").stdout)["count"] == 133


def test_a_time_that_cannot_be_read_is_refused(shop: Shop, queue: KQueue) -> None:
    queue.open()
    assert "expected a time such as" in shop.refused("list", "--added-since", "yesterday")
    assert "expected less than" in shop.refused("list", "--added-since", f"{'9' * 30}d")
    for every in ("0", "1e3", "9999d"):
        assert "--watch" in shop.refused("list", f"--watch={every}")


def test_each_look_is_a_block_of_lines_where_there_is_no_terminal(shop: Shop, queue: KQueue) -> None:
    job_id = queue.add_job("greet")
    with shop.start("list", "--state", "ready", "--watch", "0.1") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert [next(lines).split()[:2] for _ in range(3)] == [["id", "type"], [job_id, "greet"], []]
        queue.delete_job(job_id)
        while next(lines) != "no ready jobs\n":
            pass
        assert next(lines) == "\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")


def test_a_store_that_goes_away_is_said_and_looked_at_again(shop: Shop, queue: KQueue) -> None:
    queue.open()
    queue.close()
    path = shop.folder / "jobs.db"
    with shop.start("list", "--watch", "0.1", "--json") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert json.loads(next(lines)) == {"jobs": [], "more_after": None}
        path.rename(path.with_name("away.db"))
        while "jobs.db" not in next(lines):
            pass
        path.with_name("away.db").rename(path)
        while "more_after" not in next(lines):
            pass
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_on_a_terminal_it_is_redrawn_at_one_go(shop: Shop, queue: KQueue) -> None:
    """No look wipes the screen before it draws: that flickers."""
    queue.add_jobs("greet", range(40))
    ours, theirs = pty.openpty()
    shop.environment |= {"LINES": "10", "COLUMNS": "50"}
    seen = ""
    with shop.start("list", "--state", "ready", "--watch", "0.1", stdout=theirs) as process:
        os.close(theirs)
        deadline = time.monotonic() + PATIENCE_S
        while seen.count("\x1b[H") < 3 and time.monotonic() < deadline:
            seen += os.read(ours, 65_536).decode()
        process.send_signal(signal.SIGINT)
        try:
            while True:
                seen += os.read(ours, 65_536).decode()
        except OSError:  # the other end is closed
            os.close(ours)
    assert process.returncode == 0
    assert seen.count("\x1b[2J") == 1
    assert seen.startswith("\x1b[?25l\x1b[2J\x1b[H")
    assert seen.rstrip("^C").endswith("\x1b[?25h")
    first = CONTROL.sub("", seen.split("\x1b[H")[1]).splitlines()
    assert "each 0.1 s until Ctrl-C" in first[0]
    assert first[2].split() == ["id", "type", "state", "tries", "wh"] or first[2].startswith("id ")
    assert first[-1] == "... 35 lines more"
    assert len(first) <= 9
    assert max(map(len, first)) <= 50


@pytest.mark.parametrize(("encoding", "shown"), [("latin-1", "\\u0141ódź"), ("utf-8", "Łódź")])
def test_what_a_locale_cannot_say_is_shown_escaped(shop: Shop, queue: KQueue, encoding: str, shown: str) -> None:
    def fail(job: JobInHand) -> None:
        raise RuntimeError("Łódź")

    ids = queue.add_jobs("greet", [1, 2])
    queue.options("greet", max_tries=1)
    queue.add_handler("greet", fail)
    queue.run_jobs()
    shop.environment["PYTHONIOENCODING"] = encoding
    with shop.start("list", encoding=encoding) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    lines = out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ids
    assert all(shown.replace("ź", "\\u017a" if encoding == "latin-1" else "ź") in line for line in lines)
