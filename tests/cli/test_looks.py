"""``kqueue cron`` and ``kqueue stats``, in real processes."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from kqueue import KQueue
from kqueue.contracts.workers import WorkerRecord
from tests.shop import APP, Shop

SCHEDULES = """
queue.add_cron("0 3 1 1 *", "bill", tz="Europe/Berlin", missed="all")
queue.add_cron("*/5 * * * *", "report", name="often")
"""


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    (tmp_path / "cronshop.py").write_text(APP + SCHEDULES)
    with KQueue(shop.store) as queue:
        queue.open()
    return shop


def test_schedules_of_an_app_and_their_next_ticks(shop: Shop) -> None:
    lines = shop.kqueue("cron", "--app", "cronshop:queue", "--next", "3").stdout.splitlines()
    assert lines[0].split() == ["name", "type", "expression", "tz", "missed", "last", "next"]
    assert lines[1].split()[:11] == [
        "bill",
        "bill",
        *["0", "3", "1", "1", "*"],
        "Europe/Berlin",
        "all",
        "none",
        "yet",
    ]
    assert lines[3:5] == ["", lines[4]]
    ticks = [line.split() for line in lines[5:]]
    assert [tick[2:] for tick in ticks] == [["often", "report"]] * 3
    report = json.loads(shop.kqueue("cron", "--app", "cronshop:queue", "--json").stdout)["schedules"][0]
    [tick] = report.pop("next")
    assert datetime.fromtimestamp(tick).astimezone(None).minute == 0
    assert report == {
        "name": "bill",
        "type": "bill",
        "expression": "0 3 1 1 *",
        "tz": "Europe/Berlin",
        "missed": "all",
        "last": None,
        "due_since": None,
    }


def test_the_store_alone_knows_the_last_ticks(shop: Shop) -> None:
    assert shop.kqueue("cron").stdout == "no schedules\n"
    shop.kqueue("run", "--app", "cronshop:queue")
    lines = shop.kqueue("cron").stdout.splitlines()
    assert [line.split() for line in lines[1:3]] == [["bill", "none", "yet"], ["often", "none", "yet"]]
    assert "another program" in lines[-1]


def test_what_waits_and_what_is_not_known(shop: Shop) -> None:
    with KQueue(shop.store) as queue:
        queue.add_jobs("greet", range(3))
        queue.add_job("part", delay=600)
        lines = shop.kqueue("stats").stdout.splitlines()
        assert lines[1].split()[:2] == ["greet", "3"]
        assert lines[2].split() == ["part", "0", "?", "?", "?", "?"]
        assert "not known" in lines[-1]
        found = json.loads(shop.kqueue("stats", "--json").stdout)
        assert found["types"]["part"] == {
            **{"waiting": 0, "oldest_age": None},
            **dict.fromkeys(["run", "finished", "failed", "mean_s"]),
        }
        assert (found["workers"], found["seconds"]) == (0, 0)
        now = queue.store.now()
        note = json.dumps({"lately": {"seconds": 10, "types": {"greet": [20, 10, 5, 1.0]}}})
        queue.store.see_worker(WorkerRecord("0" * 28, "host", 1, ("greet",), now - 60, now, note))
        lines = shop.kqueue("stats", "--type", "greet").stdout.splitlines()
        assert lines[1].split()[-5:] == ["2", "1", "0.5", "50", "ms"]
        assert lines[-1] == "Rates are of the last 10 s, of 1 worker. What cron has run is in none."
