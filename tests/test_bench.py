"""The benchmarks: each runs, with tiny numbers, and what is computed from its figures is right.

No figure is judged here. The other queues are not run: they have an environment and servers of their own.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import headline, queues, readme, show
from bench.children import Start, together
from bench.figures import Findings, Goal, Row, Table, from_json, interleaved, percentile, ratio
from bench.mixed import FreeTime, Run
from bench.peers import noops, waiting, work
from bench.peers.contenders import DURABLE, Contender
from bench.peers.goals import to_fastest
from bench.processes import check_account
from tests import sample
from tests.beanstalkd import executable as beanstalkd_path
from tests.conftest import missing
from tests.mongod import executable as mongod_path

ROOT = Path(__file__).parents[1]
PATIENCE_S = 300

#: Each benchmark with numbers that take about a second.
TINY = {
    "throughput": "--jobs 100 --rounds 1",
    "one_by_one": "--jobs 20 --rounds 2",
    "adds": "--jobs 32 --rounds 1",
    "payloads": "--jobs 20 --rounds 1",
    "limits": "--jobs 60 --rounds 1",
    "kept": "--jobs 100 --rounds 1",
    "killers": "--killers 1 --good 2 --processes 1 --rounds 1",
    "pickup": "--jobs 5 --delayed 1 --idle 0.1 --rounds 1",
    "processes": "--jobs 200 --processes 2 --rounds 1",
    "mongodb": "--jobs 100 --rounds 1",
    "growth": "--largest 1000 --jobs 100 --rounds 2",
    "mixed": "--bursts 1 --workers 2 --rounds 1",
    "levers": "--jobs 20 --rounds 1",
    "real_work": "--seconds 0.02 --rounds 1",
}
#: Those that run without ``--proof``: others on another day.
DRAWN = random.Random(sample.seed()).sample(sorted(TINY), 2)


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in DRAWN else pytest.mark.proof) for name in TINY]
)
def test_a_benchmark_prints_its_tables_and_writes_them(name: str, tmp_path: Path):
    if beanstalkd_path() is None:
        missing("beanstalkd", "apt install beanstalkd")
    if name in {"mongodb", "real_work"} and mongod_path() is None:
        missing("mongod", "set KQUEUE_MONGOD to its path")
    done = run(f"bench.{name}", *TINY[name].split(), "--json", str(tmp_path / "figures.json"))
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["command"] == f"python -m bench.{name} {TINY[name]}"
    findings = from_json(written)
    assert findings.tables
    for table in findings.tables:
        assert table.title in done.stdout
        assert len(table.rows) > 1
        assert all(min(row.values) > 0 for row in table.rows), table
        assert all(row.name in done.stdout for row in table.rows)
    assert all(goal.what in done.stdout for goal in findings.goals)
    assert str(tmp_path) not in (tmp_path / "figures.json").read_text()


def test_instructions_are_counted_under_callgrind(tmp_path: Path):
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed: apt install valgrind")
    done = run("bench.instructions", "--jobs", "500", "--json", str(tmp_path / "figures.json"))
    assert done.returncode == 0, done.stderr
    findings = from_json(json.loads((tmp_path / "figures.json").read_text()))
    for table in findings.tables:
        assert len(table.rows) == 2
        # Between what a statement takes at least, and what nothing takes that is counted for jobs.
        assert all(1_000 < row.median < 1_000_000 for row in table.rows), table
    both, *parts = findings.tables
    assert both.rows[0].median == sum(part.rows[0].median for part in parts)


def test_every_benchmark_is_tested_and_made_and_shown():
    commands = {path.stem for path in (ROOT / "bench").glob("*.py") if "ROUNDS, show_default" in path.read_text()}
    assert commands == set(TINY)
    makefile, shown = (ROOT / "Makefile").read_text(), readme.README.read_text()
    for name in commands:
        assert f"python -m bench.{name} --rounds" in makefile
        assert f"``python -m bench.{name}``" in shown
        assert f".. figures {name}\n" in shown
    questions = re.search(r"^QUESTIONS := (.*)$", makefile, re.MULTILINE)
    assert questions is not None
    assert set(questions[1].split()) == commands


# -- figures -------------------------------------------------------------------------------------------------


def test_a_ratio_is_taken_within_each_round():
    # The third round was slow for both; the ratio of the medians would be 2.5.
    assert ratio([10, 20, 3], [5, 4, 1.5]) == 2


def test_contenders_run_in_turn_and_every_other_round_goes_backwards():
    ran: list[str] = []

    def contender(name: str) -> float:
        ran.append(name)
        return len(ran)

    figures = interleaved({"a": lambda: contender("a"), "b": lambda: contender("b")}, 3)
    assert ran == ["a", "b", "b", "a", "a", "b"]
    assert figures == {"a": [1, 4, 5], "b": [2, 3, 6]}


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1, 100), (0.001, 1)])
def test_percentiles(share: float, expected: float):
    assert percentile(range(100, 0, -1), share) == expected


@pytest.mark.parametrize(("relation", "bound", "met"), [(">=", 2, True), (">=", 2.1, False), ("<=", 1.9, False)])
def test_a_goal_is_met_or_not(relation: str, bound: float, met: bool):
    assert Goal("speed", 2.0, relation, bound).is_met is met


def found() -> Findings:
    return Findings(
        "How fast?",
        [Table("speed", "jobs/s", [Row("bare", [100.0, 110.0]), Row("ours", [200.5, 330.0], "durable")])],
        [Goal("to bare", 2.5, ">=", 6)],
        ["[1, 2] is no list of figures."],
        [Table("each", "ms", [Row("ours", [1.0, 2.0, 3.0])])],
    )


def test_what_is_written_can_be_read_and_has_a_line_for_each_row():
    text = show.as_text({"date": "today", **found().as_json()})
    assert from_json(json.loads(text)) == found()
    assert '"values": [200.5, 330.0]' in text


def test_where_the_json_goes_is_no_part_of_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["x", "--json", "a/b.json", "--jobs", "5", "--json=c.json", "--rounds=2"])
    assert show.begin("How fast?", {})["command"].endswith(" --jobs 5 --rounds=2")


def result() -> dict[str, Any]:
    about = {"command": "python -m bench.x", "date": "today", "machine": {"processor": "fast", "SQLite": "3"}}
    return {**about, **found().as_json()}


def test_figures_are_written_into_their_places_and_nowhere_else():
    text = "A\n\n.. figures x\n\nold\n\n.. end\n\nB\n\n.. figures y\n\n.. end\n\nC\n"
    once = readme.filled(text, {"x": result(), "z": result()})
    assert "old" not in once
    assert re.search(r"^ours \(durable\) +265 +200 +330 +2\.50$", once, re.MULTILINE), once
    assert re.search(r"^to bare +2\.50 +>= 6 +not met$", once, re.MULTILINE), once
    assert ".. figures y\n\n*Not measured yet.*\n\n.. end\n\nC\n" in once
    assert once.startswith("A\n\n.. figures x\n\n``python -m bench.x`` on today: fast, SQLite 3.\n")
    assert readme.filled(once, {"x": result()}) == once


def waiting_run() -> Findings:
    names = {"KQueue threads, SQLite FULL + beanstalkd -b": 0.9, "KQueue threads, SQLite FULL": 0.95}
    peers = [
        Row("Huey", [0.5, 0.7, 0.9], "power loss may cost the file"),
        Row("SAQ", [0.4], "durable at power loss"),
    ]
    rows = [*(Row(name, [value], "durable at power loss") for name, value in names.items()), *peers]
    return Findings("How fast?", [Table("8 at once", "of 800 jobs/s", rows), Table("32", "of 3,200 jobs/s", rows)])


def test_what_waits_stands_beside_the_fastest_other_queue():
    lines = [re.split("  +", line) for line in headline.waiting_lines({"peers_wait": waiting_run()})]
    assert ["KQueue, SQLite and a beanstalkd", "90 %", "90 %"] in lines
    assert ["the fastest other queue that is as durable", "40 %: SAQ", "40 %: SAQ"] in lines
    assert ["the fastest other queue, whatever a power loss costs", "70 %: Huey", "70 %: Huey"] in lines
    assert not any("MongoDB" in line[0] for line in lines), "it did not run"


def test_the_pages_show_the_figures_that_were_kept():
    results = {path.stem: json.loads(path.read_text()) for path in readme.RESULTS.glob("*.json")}
    for page, text in readme.pages(results).items():
        assert page.read_text() == text, f"{page.name}: make bench-report writes it"


# -- what single benchmarks compute --------------------------------------------------------------------------


def test_only_the_time_with_a_free_worker_counts_as_waiting():
    runs = [Run(0, 0.0, 2.0, 1), Run(1, 1.0, 3.0, 1), Run(2, 2.0, 2.5, 1), Run(3, 6.0, 7.0, 1)]
    free = FreeTime(runs, workers=2)  # both are busy from 1 to 2, and from 2 to 2.5
    assert free.between(0.0, 4.0) == pytest.approx(2.5)
    assert free.between(1.2, 2.2) == pytest.approx(0.0)
    assert free.between(4.0, 7.0) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("ran", "left", "words"),
    [([[0, 1], []], 0, "1 lost"), ([[0, 1], [1, 2]], 0, "1 repeated"), ([[0, 1, 2]], 4, "4 left")],
)
def test_a_job_that_is_lost_or_repeated_is_seen(ran: list[list[int]], left: int, words: str):
    with pytest.raises(AssertionError, match=words):
        check_account(3, ran, left)


# -- processes and servers -----------------------------------------------------------------------------------


def ready_then_answer(start: Start) -> float:
    start()
    return time.monotonic()


def fail_at_once(start: Start) -> None:
    raise ValueError("no luck")


def test_children_start_together():
    started, answers = together([ready_then_answer] * 2)
    assert min(answers) >= started


def test_a_child_that_fails_ends_the_benchmark():
    with pytest.raises(RuntimeError, match="no luck"):
        together([ready_then_answer, fail_at_once])


def test_a_missing_server_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(queues, "executable", lambda: None)
    with pytest.raises(queues.Missing, match="apt install beanstalkd"), queues.beanstalkd():
        pass


def test_without_the_environment_of_the_peers_it_says_what_makes_it():
    done = run("bench.peers", "--work", "wait", "--python", "no/such/python")
    assert done.returncode == 1
    assert "make bench-peers" in done.stderr
    assert "Traceback" not in done.stderr


OURS = Contender("KQueue, SQLite", "kqueue", Path(sys.executable), "sqlite:///{folder}/jobs.db", DURABLE)


def test_kqueue_does_the_work_of_the_peers():
    assert min(noops.rates(OURS, jobs=20, singles=3)) > 0


def test_kqueue_waits_as_the_peers_do():
    # Each sleeps for as long as it is told: more than the ideal is not to be had.
    assert 0 < waiting.part_of_ideal(replace(OURS, kind="threads"), hands=2, seconds=0.05) <= 1


def test_each_kind_of_hands_of_a_peer_is_a_row_and_each_kqueue_has_a_goal():
    peer = Contender("Celery, Redis", "celery", Path("python"), "redis:", "durable")
    contenders = list(waiting.of_each_kind([OURS, peer]))
    names = ["KQueue threads, SQLite", "Celery threads, Redis", "Celery greenlets, Redis"]
    assert [one.name for one in contenders] == names
    figures = {
        f"{name}, {hands} at once": [1 / (place + 1)] for place, name in enumerate(names) for hands in (8, 32)
    }
    findings = waiting.found(figures, contenders)
    assert [(table.unit, len(table.rows)) for table in findings.tables] == [
        ("of 800 jobs/s", 3),
        ("of 3,200 jobs/s", 3),
    ]
    assert [(goal.figure, goal.is_met) for goal in findings.goals] == [(2.0, True)] * 2


def test_kqueue_is_compared_with_the_fastest_peer():
    rows = [Row("ours", [6.0, 8.0]), Row("slow", [1.0, 7.0]), Row("fast", [6.0, 4.0])]
    (goal,) = to_fastest("speed", rows, "ours", ["slow", "fast"], 2)
    assert (goal.what, goal.figure, goal.is_met) == ("speed: to the fastest peer (fast)", 1.5, False)
    assert to_fastest("speed", rows, "ours", [], 2) == to_fastest("speed", rows, "absent", ["fast"], 2) == []


def clock_in_a_process(environment: dict[str, str]) -> None:
    script = "from bench.peers import work; work.run(work.SharedClock())"
    subprocess.run(
        [sys.executable, "-c", script], check=True, cwd=ROOT, env=os.environ | environment, timeout=PATIENCE_S
    )


def test_several_processes_of_a_worker_share_a_clock(tmp_path: Path):
    report = tmp_path / "report.json"
    environment = {work.JOBS: "2", work.REPORT: str(report)}
    before = time.monotonic()
    clock_in_a_process(environment)
    assert not report.exists()
    between = time.monotonic()
    clock_in_a_process(environment)
    times = json.loads(report.read_text())
    assert before < times["started"] < between < times["ended"] < time.monotonic()
