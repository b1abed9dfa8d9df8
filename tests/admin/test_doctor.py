"""What the doctor says of each thing that is not as it should be, and that it is silent of what is."""

import json
from pathlib import Path
from typing import Any

import greenstalk
import pytest

from kqueue import JobInHand, KQueue
from kqueue.admin.dead_jobs import LOT
from kqueue.admin.doctor import LONG_WAIT_S, MOST_COUNTED, MOST_NAMED, Failing, Severity, Symptom, Vitals, diagnose
from kqueue.brokers.beanstalk.health import MOST_TUBES
from kqueue.brokers.embedded import EmbeddedBroker
from kqueue.contracts.lookup import Backlog
from kqueue.contracts.operator import ALL_TYPES
from kqueue.contracts.stored_times import Misdated
from kqueue.contracts.workers import ALIVE_S, WorkerRecord
from kqueue.stores.memory.store import MemoryStore
from kqueue.upkeep.hanging import Hanging, Hung, hanging_of
from tests.beanstalkd import Beanstalkd
from tests.closing import Closes

NOW = 1_700_000_000.0


def worker(*types: str, seen: float = 1.0, note: str = "{}") -> WorkerRecord:
    return WorkerRecord("1" * 28, "here", 1, types, NOW - 100, NOW - seen, note)


def symptoms(**vitals: Any) -> list[Symptom]:
    well: dict[str, Any] = {
        "now": NOW,
        "host_time": NOW,
        "overview": [Backlog("mail", "ready", 5, NOW - 10), Backlog("mail", "running", 1, NOW - 10)],
        "workers": [worker("mail")],
        "paused": {},
        "overdue": 0,
        "abandoned": 0,
        "unput": 0,
        "broker_warnings": [],
        "strays": [],
        "beginning": "kq0123456789.",
        "broker_error": None,
    }
    return diagnose(Vitals(**{**well, **vitals}))


def test_all_is_well() -> None:
    assert symptoms() == []


@pytest.mark.parametrize(
    ("vitals", "severity", "about", "said"),
    [
        ({"broker_error": "no route"}, "problem", "broker", "no route. Workers ask the store until it is back"),
        ({"broker_warnings": ["no binlog"]}, "warning", "broker", "no binlog"),
        ({"host_time": NOW + 3}, "warning", "clock", "are 3 s apart"),
        (
            {
                "misdated": [
                    Misdated("job", "a", "mail", NOW + 40),
                    Misdated("worker", "w", None, NOW + 3 * 365 * 86_400),
                ]
            },
            "warning",
            "clock",
            "times in the future, up to 1095 days ahead: 1 job, 1 worker. The store's clock was wrong",
        ),
        ({"workers": [worker("mail", seen=-99)]}, "warning", "workers", "no worker waits for jobs"),
        ({"workers": []}, "warning", "workers", "waiting jobs of type mail: 5, and no worker waits for jobs"),
        ({"workers": [worker("other")]}, "warning", "workers", "none of the live workers has a handler"),
        ({"workers": [worker("mail", seen=ALIVE_S + 1)]}, "warning", "workers", "no worker waits for jobs"),
        ({"paused": {"mail": NOW - 60}}, "warning", "pause", "type mail is paused for 60 s; kqueue resume mail"),
        ({"paused": {ALL_TYPES: NOW - 60}}, "warning", "pause", "the whole queue is paused for 60 s"),
        ({"overdue": 3}, "problem", "sweep", "jobs due for more than a minute and not ready: 3; nobody sweeps"),
        (
            {"abandoned": MOST_COUNTED},
            "problem",
            "sweep",
            "jobs without their worker for more than a minute and not taken back: 1000 or more",
        ),
        ({"unput": 1}, "problem", "sweep", "jobs without a pointer in their tube for more than a minute: 1;"),
        (
            {"overview": [Backlog("mail", "ready", 9, NOW - LONG_WAIT_S - 1)]},
            "warning",
            "waiting",
            "the oldest of 9 ready jobs of type mail waits for 10 min",
        ),
        (
            {"overview": [Backlog("mail", "dead", 2, NOW)]},
            "warning",
            "dead",
            "dead jobs of type mail: 2; kqueue list --type mail",
        ),
    ],
)
def test_each_symptom(vitals: dict[str, Any], severity: str, about: str, said: str) -> None:
    [found] = symptoms(**vitals)
    assert (found.severity, found.about) == (severity, about)
    assert said in found.text
    assert "\n" not in found.text


@pytest.mark.parametrize(
    ("vitals", "about", "worst", "rest"),
    [
        (
            {"overview": [Backlog(f"t{n:05}", "ready", 1 + n % 7919, NOW) for n in range(10_000)], "workers": []},
            "workers",
            "waiting jobs of type t07918: 7919,",
            "and 9,990 more types with waiting jobs, and no worker waits for jobs",
        ),
        (
            {"overview": [Backlog(f"t{n:05}", "dead", 1 + n, NOW) for n in range(10_000)]},
            "dead",
            "dead jobs of type t09999: 10000;",
            "and 9,990 more types with dead jobs; kqueue list",
        ),
        (
            {
                "overview": [Backlog(f"t{n:05}", "ready", 1, NOW - LONG_WAIT_S - 1 - n) for n in range(10_000)],
                "workers": [worker(*(f"t{n:05}" for n in range(10_000)))],
            },
            "waiting",
            "the oldest of 1 ready jobs of type t09999 waits for 3 h",
            "and 9,990 more types with a ready job that waits for 10 min or more",
        ),
        (
            {"paused": {f"t{n:05}": NOW - n for n in range(10_000)}},
            "pause",
            "type t09999 is paused for 3 h",
            "and 9,990 more types are paused",
        ),
    ],
    ids=["workers", "dead", "waiting", "pause"],
)
def test_of_many_types_the_worst_are_named_and_the_rest_is_counted(
    vitals: dict[str, Any], about: str, worst: str, rest: str
) -> None:
    found = symptoms(**vitals)
    assert [symptom.about for symptom in found] == [about] * (MOST_NAMED + 1)
    assert worst in found[0].text
    assert found[-1].text == rest


def test_problems_come_first() -> None:
    found = symptoms(paused={"mail": NOW}, overdue=1)
    assert [symptom.severity for symptom in found] == [Severity.PROBLEM, Severity.WARNING]


def test_an_embedded_queue_that_is_new_is_well() -> None:
    assert KQueue(store="memory:").checkup() == []


def test_without_a_server_there_is_nothing_to_warn_of() -> None:
    assert EmbeddedBroker(MemoryStore()).warnings(["mail"]) == []


def test_a_beanstalkd_says_what_is_wrong_with_it(start_beanstalkd: Any, closes: Closes) -> None:
    plain, with_binlog = start_beanstalkd(), start_beanstalkd(binlog=True)

    def said(server: Beanstalkd) -> str:
        queue = closes(KQueue(store="memory:", broker=server.url))
        queue.add_job("mail")
        return " ".join(symptom.text for symptom in queue.checkup())

    assert "no binlog (-b)" in said(plain)
    assert "no binlog" not in said(with_binlog)
    with_binlog.drain_mode()
    assert "drain mode" in said(with_binlog)


def test_what_strangers_did_to_a_tube(beanstalkd: Beanstalkd, closes: Closes) -> None:
    queue = closes(KQueue(store="memory:", broker=beanstalkd.url))
    queue.add_job("mail")
    with greenstalk.Client(("127.0.0.1", beanstalkd.port), use=f"{queue.prefix}mail") as stranger:
        stranger.put("not ours", priority=0)
        stranger.pause_tube(f"{queue.prefix}mail", 3600)
    queue.sweep()  # which buries it
    said = " ".join(symptom.text for symptom in queue.checkup())
    assert "the tube of type mail is paused by somebody for another 3" in said
    assert "1 entries that are not ours were buried in the tube of type mail" in said


def test_a_beanstalkd_that_is_down_is_a_problem_and_the_rest_is_told(
    beanstalkd: Beanstalkd, tmp_path: Path, closes: Closes
) -> None:
    queue = closes(KQueue(store="memory:", broker=beanstalkd.url))
    queue.add_job("mail")
    beanstalkd.kill()
    found = queue.checkup()
    assert [symptom.about for symptom in found] == ["broker", "workers"]
    assert "cannot connect" in found[0].text or "closed the connection" in found[0].text


def test_what_hangs_in_a_live_worker() -> None:
    hanging = Hanging((Hung("a" * 28, "mail", 29.0),), (Hung("b" * 28, "mail"),), 12, 90.0)
    note = json.dumps({"loops": 2, **hanging.note()})
    first, second, third = symptoms(workers=[worker("mail", note=note)])
    assert {first.about, second.about, third.about} == {"hang"}
    assert [one.severity for one in (first, second, third)] == ["problem", "problem", "warning"]
    assert first.text.startswith(
        f"job {'a' * 28} of type mail still runs in process 1 on here, 30 s beyond its lease: its handler hangs"
    )
    settled = Hanging((Hung("a" * 28, "mail", 29.0, True),))
    (one,) = symptoms(workers=[worker("mail", note=json.dumps(settled.note()))])
    assert "mail has ended, and its handler still runs in process 1 on here, 30 s beyond its lease" in one.text
    assert second.text.startswith("the event loop of process 1 on here has stood still for 90 s")
    assert third.text.endswith(f": 12; one was of job {'b' * 28} of type mail")
    assert symptoms(workers=[worker("mail"), worker("mail", note=note, seen=100)]) == []


@pytest.mark.parametrize(
    "note", ["", "[]", "{", '{"abandoned": 3}', '{"past_lease": [1]}', '{"event_loop_s": "x"}']
)
def test_a_note_of_another_version_says_nothing(note: str) -> None:
    assert hanging_of(worker("mail", note=note), NOW) == Hanging()


def test_a_note_of_an_older_version_tells_no_seconds() -> None:
    note = json.dumps({"past_lease": [["a" * 28, "mail"]]})
    assert hanging_of(worker("mail", note=note), NOW).past_lease == (Hung("a" * 28, "mail"),)


def test_of_many_tubes_the_worst_are_named_and_none_is_looked_at_without_need(
    beanstalkd: Beanstalkd, closes: Closes
) -> None:
    queue = closes(KQueue(store="memory:", broker=beanstalkd.url))
    queue.open()
    types = [f"t{number:04}" for number in range(MOST_TUBES + 5)]

    def looks() -> int:
        with beanstalkd.client() as client:
            return int(client.stats()["cmd-stats-tube"])

    assert all("tube of" not in warning for warning in queue.broker.warnings(types))
    assert looks() == 0
    for number, type in enumerate(types[: MOST_NAMED + 3]):
        with beanstalkd.client(queue.prefix + type) as stranger:
            for _ in range(1 + (number == 5)):
                stranger.bury(stranger.reserve_job(stranger.put(b"not ours")))
    said = [text for text in queue.broker.warnings(types) if "buried" in text or "looked" in text]
    assert len(said) == MOST_NAMED + 2
    assert "2 entries that are not ours were buried in the tube of type t0005" in said[0]
    assert said[-2].endswith("and entries that are not ours were buried in the tubes of 3 more types")
    assert said[-1].endswith("the tubes of 5 more types were not looked at")
    assert looks() == MOST_TUBES


def test_types_whose_jobs_fail_again_and_again_are_named() -> None:
    (symptom,) = symptoms(failing=[Failing("mail", 14, "OSError: down (shop.py:8)")])
    assert symptom == Symptom(
        Severity.WARNING, "failing", "failed 3 times or more: 14 jobs of mail, last: OSError: down (shop.py:8)"
    )


def test_a_checkup_finds_them_while_they_are_delayed() -> None:
    """As long as they have a next try nothing else shows them."""
    queue = KQueue("memory:", retry_delay=0, max_tries=5)

    def fail(job: JobInHand) -> None:
        if job.tries == (3 if job.payload == "often" else 1):
            job.retry("no such address", delay=3600)
        raise ValueError("not yet")

    queue.add_handler("mail", fail)
    queue.add_jobs("mail", ["often", "often", "once"])
    queue.run_jobs()
    said = [symptom.text for symptom in queue.checkup() if symptom.about == "failing"]
    assert said == ["failed 3 times or more: 2 jobs of mail, last: no such address"]


def test_a_checkup_has_few_of_them_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their payloads are read with them, and may be large."""
    queue = KQueue("memory:")
    queue.add_jobs("mail", range(2 * LOT + 1), delay=3600)
    read: list[int] = []
    get = queue.store.get
    monkeypatch.setattr(queue.store, "get", lambda ids: read.append(len(ids)) or get(ids))
    assert queue.checkup() == []
    assert read == [LOT, LOT, 1]
