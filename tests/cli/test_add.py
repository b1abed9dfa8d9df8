"""``kqueue add``, in real processes."""

import pytest

from kqueue import KQueue
from tests.beanstalkd import free_port
from tests.shop import Shop, the_job


def test_add_stores_each_payload_and_prints_its_id(shop: Shop, queue: KQueue):
    ids = shop.ids("greet", '{"a": [1, null]}', '"é"', "--priority", "high", "--delay", "60", "--ttr", "2.5")
    jobs = [queue.get_job(job_id) for job_id in ids]
    assert [job and job.payload for job in jobs] == [{"a": [1, None]}, "é"]
    assert {(job.priority, job.delay, job.ttr, job.state) for job in jobs if job} == {(2**14, 60, 2.5, "delayed")}


def test_add_without_a_payload_adds_null(shop: Shop, queue: KQueue):
    (job_id,) = shop.ids("greet")
    job = queue.get_job(job_id)
    assert job is not None
    assert job.payload is None


def test_add_takes_the_tries_of_a_job_and_the_delay_between_them(shop: Shop, queue: KQueue):
    ids = shop.ids("greet", "1", "2", "--max-tries", "1", "--retry-delay", "10m")
    assert [job and job.max_tries for job in map(queue.get_job, ids)] == [1, 1]
    queue.add_handler("greet", lambda job: 1 / 0)
    assert queue.run_jobs().dead == 2


def test_add_takes_a_number_as_priority(shop: Shop, queue: KQueue):
    (job_id,) = shop.ids("greet", "--priority", "7")
    job = queue.get_job(job_id)
    assert job is not None
    assert job.priority == 7


def test_add_takes_a_negative_number_after_two_dashes(shop: Shop, queue: KQueue):
    (job_id,) = shop.ids("greet", "--", "-5")
    job = queue.get_job(job_id)
    assert job is not None
    assert job.payload == -5


@pytest.mark.parametrize("source", [["-"], ["--lines", "-"], ["--lines", "lines.jsonl"]])
def test_add_reads_one_payload_a_line(shop: Shop, queue: KQueue, source: list[str]):
    text = '{"n": 1}\n\n"two"\r\n3'
    (shop.folder / "lines.jsonl").write_text(text)
    jobs = [queue.get_job(job_id) for job_id in shop.ids("greet", *source, text=text)]
    assert [job and job.payload for job in jobs] == [{"n": 1}, "two", 3]


def test_add_counts_instead_of_printing_ids(shop: Shop, queue: KQueue):
    assert shop.ids("greet", "-", "--count", text="1\n" * 2_345) == ["2345"]
    assert queue.counts("greet")["ready"] == 2_345


def test_add_of_no_lines_adds_nothing(shop: Shop):
    assert shop.ids("greet", "-", "--count", text="") == ["0"]


def test_a_bad_line_is_named_and_nothing_of_its_batch_is_added(shop: Shop, queue: KQueue):
    line = shop.refused("add", "greet", "-", text="1\n2\n\nthree\n5\n")
    assert "standard input, line 4" in line
    assert "'three'" in line
    assert queue.counts()["ready"] == 0


def test_a_bad_line_far_down_says_how_many_were_added_before(shop: Shop, queue: KQueue):
    line = shop.refused("add", "greet", "-", "--count", text="1\n" * 1_500 + "oops\n")
    assert "line 1501" in line
    assert "added before: 1000 jobs" in line
    assert queue.counts("greet")["ready"] == 1_000


def test_closed_standard_input_is_said(shop: Shop):
    done = shop.shell("KQUEUE add greet - <&-")
    assert done.returncode == 2
    assert done.stderr.startswith("kqueue: standard input: ")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["greet", "abc"], "payload 1: expected JSON, got 'abc'"),
        (["greet", "1", "NaN"], "payload 2: expected JSON, got 'NaN'"),
        (["greet", "[" * 100_000], "payload 1: expected JSON"),
        (["greet", "1", "--lines", "f"], "not both"),
        (["greet", "--lines", "missing.jsonl"], "missing.jsonl: No such file"),
        (["two\nlines"], "type: "),
        (["greet", "--priority", "asap"], "priority: "),
        (["greet", "--priority", "4294967296"], "priority: "),
        (["greet", "--delay", "-1"], "--delay"),
        (["greet", "--delay", "nan"], "--delay"),
        (["greet", "--ttr", "0"], "ttr: "),
        (["greet", "--ttr", "soon"], "--ttr"),
        (["greet", "--store", "redis://localhost"], "store: "),
        (["greet", "--store", "memory:"], "such as sqlite:///jobs.db"),
        (["greet", "--store", "sqlite:////no/such/folder/jobs.db"], "sqlite:////no/such/folder/jobs.db"),
        (["greet", "--broker", "amqp://localhost"], "broker: "),
        (["greet", "--speed", "9"], "--speed"),
        ([], "TYPE"),
    ],
)
def test_add_refuses_on_one_line_and_adds_nothing(shop: Shop, queue: KQueue, args: list[str], said: str):
    assert said in shop.refused("add", *args)
    assert queue.store.overview() == []


def test_add_while_the_broker_is_down_keeps_the_job(shop: Shop, queue: KQueue):
    done = shop.kqueue("add", "greet", "--broker", f"beanstalk://127.0.0.1:{free_port()}")
    assert done.returncode == 0
    assert queue.get_job(done.stdout.strip()) is not None


def test_times_are_read_as_people_write_them(shop: Shop):
    ids = [
        *shop.ids("greet", "1", "--delay", "10m"),
        *shop.ids("greet", "2", "--delay", "2h", "--ttr", "5m"),
        *shop.ids("greet", "3", "--run-at", "2999-01-01T00:00"),
    ]
    with KQueue(store=shop.store) as queue:
        jobs = [the_job(queue, job_id) for job_id in ids]
    assert [job.state for job in jobs] == ["delayed"] * 3
    assert [job.delay for job in jobs[:2]] == [600, 7200]
    assert jobs[1].ttr == 300
    assert "expected seconds, or 90s" in shop.refused("add", "greet", "--delay", "soon")
    assert "run_at: either it or delay" in shop.refused("add", "greet", "--delay", "5", "--run-at", "2999-01-01")


def test_a_unique_key_adds_one_job(shop: Shop):
    first = shop.ids("greet", "1", "--unique", "user 42", "--limit-key", "a", "--unique-for", "1h")
    assert shop.ids("greet", "2", "--unique", "user 42") == first
    assert shop.kqueue("add", "greet", "3", "--unique", "user 42", "--count").stdout == "0\n"
    with KQueue(store=shop.store) as queue:
        [job] = queue.jobs("greet", state="ready")
    assert (job.payload, job.unique, job.limit_key) == (1, "user 42", "a")
    assert "--unique: for one PAYLOAD" in shop.refused("add", "greet", "1", "2", "--unique", "user 42")
    assert "--unique-for: only together with --unique" in shop.refused("add", "greet", "1", "--unique-for", "1h")
