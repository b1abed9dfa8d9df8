"""What docs/async.rst shows is run as it stands there."""

import subprocess
import sys
from pathlib import Path

from tests.pages.blocks import blocks, page

EXAMPLES = blocks(page("async"), "python")


def run(code: str, folder: Path, said: int = 0) -> str:
    """``said``: records about jobs that it logs."""
    (folder / "shop.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "shop.py"], check=False, cwd=folder, capture_output=True, text=True
    )
    told = [line for line in done.stderr.splitlines() if line.startswith("job ")]
    assert (done.returncode, len(told), bool(told)) == (0, said, bool(done.stderr)), done.stderr
    return done.stdout


def test_many_are_fetched_side_by_side(tmp_path: Path) -> None:
    assert run(EXAMPLES[0], tmp_path) == "200 jobs done\n"


def test_a_thread_waits_for_the_store(tmp_path: Path) -> None:
    main = """
queue.add_job("import", ["a", "b"])
assert queue.work(wait=False).deleted == 1
assert queue.counts("index")["ready"] == 2
"""
    assert run(EXAMPLES[1] + main, tmp_path) == ""


def test_one_that_never_ends_is_dead_after_its_tries(tmp_path: Path) -> None:
    assert run(EXAMPLES[2], tmp_path, said=2) == ""


def test_inside_an_event_loop_a_thread_runs_the_jobs(tmp_path: Path) -> None:
    code = EXAMPLES[3].replace("report = ", 'queue.add_job("fetch")\nreport = ') + "print(report.deleted)\n"
    said, done = run(code, tmp_path).splitlines()
    assert said.startswith("run_jobs: called inside a running event loop")
    assert "await asyncio.to_thread(queue.run_jobs)" in said
    assert done == "1"


def test_all_examples_are_run() -> None:
    assert len(EXAMPLES) == 4
