"""The commands on a store that may only be read."""

import json
import subprocess
from pathlib import Path

from kqueue import KQueue
from tests.shop import PATIENCE_S, Shop
from tests.unprivileged import python, read_only

#: Runs each command of a list, and tells how each ended.
_COMMANDS = """
import contextlib, io, json, sys
from kqueue.cli.main import main
for args in json.loads(sys.argv[1]):
    out, err, status = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(args)
        except SystemExit as end:
            status = end.code or 0
    print(json.dumps([status, out.getvalue(), err.getvalue()]), flush=True)
"""


def test_what_only_looks_works_and_what_would_write_says_why_not(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    folder = tmp_path / "jobs"
    folder.mkdir()
    shop.environment["KQUEUE_STORE"] = f"sqlite:///{folder}/jobs.db"
    with KQueue(shop.environment["KQUEUE_STORE"]) as queue:
        job_id = queue.add_job("greet", "Ann")
    looks = [
        (["status"], 0, "greet        0      1"),
        (["list", "--state", "ready"], 0, job_id),
        (["show", job_id, "--payload"], 0, '"Ann"'),
        (["why", job_id], 0, "no worker waits"),
        (["doctor"], 1, "waiting jobs of type greet: 1"),
        (["workers"], 0, "no worker waits"),
        (["stats"], 0, "Rates are not known"),
        (["cron"], 0, "no schedules"),
        (["list", "--state", "ready", "--count"], 0, "greet      1"),
        (["sweep", "--dry-run"], 0, ""),
        (["backup", str(tmp_path / "backup.db")], 0, ""),
    ]
    writes = [
        ["add", "greet"],
        ["sweep"],
        ["pause", "greet"],
        ["resume", "greet"],
        ["delete", job_id, "--yes"],
        ["retry", job_id],
        ["purge", "greet", "--yes"],
    ]
    (tmp_path / "shop.py").write_text((tmp_path / "shop.py").read_text().replace("jobs.db", "jobs/jobs.db"))
    commands = json.dumps([*(args for args, _, _ in looks), *writes])
    with read_only(folder):
        done = _in(shop, "-c", _COMMANDS, commands)
        run = _in(shop, "-m", "kqueue", "run", "--app", "shop:queue")  # it has a process of its own
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    ends.append([run.returncode, run.stdout, run.stderr])
    for (args, status, said), end in zip(looks, ends[: len(looks)], strict=True):
        assert end[0] == status, (args, end)
        assert said in end[1], (args, end)
        assert not end[2], (args, end)
    for args, (status, _, err) in zip([*writes, ["run"]], ends[len(looks) :], strict=True):
        assert status == 2, args
        assert "this user may only read it, and nothing was changed" in err, (args, err)
        assert err.count("\n") == 1, (args, err)


def _in(shop: Shop, *args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        python(*args),
        cwd=shop.folder,
        env=shop.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
