"""What 1,000 jobs cost, counted: statements, commands, writes, system calls. It guards the speed and measures no
time, so it says the same on every machine.

The numbers below are all that is allowed. Who lowers one writes the new one down; who raises one says why in the
commit.
"""

import asyncio
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kqueue import JobInHand, KQueue
from kqueue.system.clock import ManualClock
from tests.beanstalkd import Beanstalkd
from tests.conftest import missing
from tests.costs.work import PAYLOAD, at_a_still_clock, open_queue, run
from tests.mongod import Mongod
from tests.steps import edges
from tests.steps.tap import Tap

JOBS = 1000
#: One job was counted before. So of 8, 64, 512 jobs, and of the rest.
WINDOWS = 4

#: To add a list of jobs: calls of the store, then those of the broker.
ADD = {
    "sqlite": {"sqlite: BEGIN": 1, "sqlite: INSERT": 1, "sqlite: COMMIT": 1},
    "mongodb": {"mongo: insert": 1},
    "beanstalkd": {"tube: put": 1},
    "embedded": {},
}
#: To run them. One transaction a window on SQLite, which settles what has ended and claims more, and one at the
#: end. What that wrote may have let others in, so all is looked at once more.
RUN = {
    "sqlite": {
        "sqlite: BEGIN": WINDOWS + 1,
        "sqlite: SELECT": WINDOWS,
        "sqlite: UPDATE": WINDOWS,
        "sqlite: DELETE": WINDOWS,
        "sqlite: COMMIT": WINDOWS + 1,
    },
    "mongodb": {"mongo: find": WINDOWS, "mongo: update": WINDOWS, "mongo: delete": WINDOWS},
    # The last two find nothing. An entry with ids left is released, and one without is deleted.
    "beanstalkd": {
        "tube: connect": 1,
        "tube: watch": 1,
        "tube: reserve-with-timeout": WINDOWS + 2,
        "tube: release": 2,
        "tube: delete": 2,
        # Then the store is asked, past the tube.
        "look": 4,
    },
    # Each look asks whether something is ready, and when something will be.
    "embedded": {"look": 2 * (WINDOWS + 2)},
}
#: While windows grow they find entries whose first jobs are gone: SQLite looks whether these are only delayed.
#: MongoDB sees that at the first look, but reads 64 ids, then twice as many: two windows take another page.
SECOND_LOOKS = {"sqlite": WINDOWS - 1, "mongodb": 2}
#: Types of one job each.
TYPES = 400
#: The entries of 1,000 ids: 100 in each.
ENTRIES = JOBS // 100


class Pair:
    """A store, and beanstalkd or the embedded broker."""

    def __init__(self, store: str, broker: str, urls: list[str]) -> None:
        self.store, self.broker, self.urls = store, broker, urls

    def allowed(self, costs: dict[str, dict[str, int]]) -> Counter[str]:
        """The calls of both."""
        calls = Counter(costs[self.store]) + Counter(costs[self.broker])
        look = {"sqlite": "sqlite: SELECT", "mongodb": "mongo: find"}[self.store]
        calls[look] += calls.pop("look", 0)
        if costs is RUN and self.broker == "beanstalkd":
            calls[look] += SECOND_LOOKS[self.store]
        return +calls


@pytest.fixture(params=["embedded", "beanstalkd"])
def broker(request: pytest.FixtureRequest) -> tuple[str, list[str]]:
    if request.param == "embedded":
        return request.param, []
    server: Beanstalkd = request.getfixturevalue("beanstalkd")
    return request.param, [server.url]


@pytest.fixture(params=["sqlite", "mongodb"])
def pair(request: pytest.FixtureRequest, broker: tuple[str, list[str]], tmp_path: Path) -> Pair:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/jobs.db"
    else:
        server: Mongod = request.getfixturevalue("mongod")
        url = server.url(request.getfixturevalue("mongo_database"))
        # How often the driver looks after the server meanwhile says something of the machine's speed only.
        url += "&serverMonitoringMode=poll&heartbeatFrequencyMS=3600000"
    return Pair(request.param, broker[0], [url, *broker[1]])


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch, rings_at_once: None) -> Tap:
    tap = Tap()
    edges.install(tap, monkeypatch)
    return tap


@pytest.fixture
def queue(pair: Pair, tap: Tap) -> Iterator[KQueue]:
    with open_queue(*pair.urls) as queue:
        yield queue


def calls_of(tap: Tap, work: Callable[[], object]) -> Counter[str]:
    """By the first words of their nature. To fetch a row, or to read a reply, asks no server for anything. And a
    look at MongoDB's clock comes once a minute, however many jobs are run: on a slow machine also here.
    """
    with tap.listening({}, lambda: None):
        work()
    natures = [point.key.nature for point in tap.points]
    return Counter(
        " ".join(nature.replace(",", "").split()[:2])
        for nature in natures
        if not re.match(r"sqlite: (fetch|next)|mongo: hello|tube: .* of reply to", nature)
    )


def test_a_list_is_added_by_one_write_of_the_store_and_one_of_the_tube(queue: KQueue, pair: Pair, tap: Tap) -> None:
    assert calls_of(tap, lambda: queue.add_jobs("noop", [PAYLOAD] * JOBS)) == pair.allowed(ADD)


def test_a_window_costs_a_small_constant_number_of_calls(queue: KQueue, pair: Pair, tap: Tap) -> None:
    queue.add_jobs("noop", [PAYLOAD] * JOBS)
    assert calls_of(tap, queue.run_jobs) == pair.allowed(RUN)


#: What each window costs more under limits that do not bind. SQLite: looks at what runs, has started and waits, and
#: after its end at who is held; and its starts are counted. MongoDB: its turn at the limit, and the same looks.
LIMITED = {
    "sqlite": {"sqlite: SELECT": 5, "sqlite: DELETE": 1, "sqlite: INSERT": 1},
    "mongodb": {"mongo: find": 3, "mongo: aggregate": 2, "mongo: distinct": 2, "mongo: update": 1},
}


def test_limits_that_do_not_bind_cost_a_window_a_constant_number_of_calls(
    queue: KQueue, pair: Pair, tap: Tap
) -> None:
    """However many keys there are, and however many jobs of each: places are counted for the whole of it."""
    queue.limit("noop", running=4, running_per_key=1, starts=JOBS + 9)
    for key in range(20):
        queue.add_jobs("noop", [PAYLOAD] * (JOBS // 20), limit_key=f"key {key}")
    more = calls_of(tap, queue.run_jobs) - pair.allowed(RUN)
    # The pointers of 20 lists fill other entries than those of one.
    more = Counter({call: number for call, number in more.items() if not call.startswith("tube:")})
    assert more <= Counter({call: WINDOWS * number for call, number in LIMITED[pair.store].items()})


@pytest.mark.parametrize("is_known", [False, True], ids=["new", "measured before"])
def test_many_types_cost_what_one_does(pair: Pair, tap: Tap, is_known: bool) -> None:
    """Each had its own windows, and each of these asked type by type, so 400 types of one job cost 164,038
    statements. What a delete costs, a statement each, is the same for both.
    """

    def run_types(queue: KQueue, types: int) -> int:
        names = [f"t{number}" for number in range(types)]
        for name in names:
            queue.add_handler(name, JobInHand.delete)
        for _ in range(1 + is_known):
            for name in names:
                queue.add_jobs(name, [PAYLOAD] * (TYPES // types))
            queue.flush()
            calls = calls_of(tap, queue.run_jobs)
            assert not any(queue.counts().values())
        return calls.total()

    with open_queue(*pair.urls) as queue:
        of_one = run_types(queue, 1)
    with open_queue(*pair.urls) as queue:
        assert run_types(queue, TYPES) <= 3 * of_one + TYPES


def test_an_entry_carries_a_hundred_jobs_through_the_tube(beanstalkd: Beanstalkd, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    with open_queue(url, beanstalkd.url) as queue, beanstalkd.client() as client:
        before = client.stats()
        run(queue, JOBS)
        after = client.stats()
    grown = {name: int(after[f"cmd-{name}"]) - int(before[f"cmd-{name}"]) for name in ("put", "delete", "release")}
    assert grown["put"] == grown["delete"] == ENTRIES
    assert grown["release"] <= WINDOWS * 2


@pytest.mark.usefixtures("rings_at_once")
def test_jobs_that_take_long_reserve_what_they_run(beanstalkd: Beanstalkd, tmp_path: Path) -> None:
    """Of 10 ms each, added one by one: five fill a window, so more entries than that are not reserved for one. Else
    most go back, and meanwhile the other threads and processes find the tube empty.
    """
    clock = ManualClock(1_800_000_000.0)
    with (
        at_a_still_clock(f"sqlite:///{tmp_path}/jobs.db", beanstalkd.url, clock=clock) as queue,
        beanstalkd.client() as client,
    ):

        @queue.handler("slow")
        def work(job: JobInHand) -> None:
            clock.advance(0.010)
            job.delete()

        for _ in range(200):
            queue.add_job("slow")
        before = client.stats()
        assert queue.run_jobs().deleted == 200
        after = client.stats()
    grown = {name: int(after[f"cmd-{name}"]) - int(before[f"cmd-{name}"]) for name in ("delete", "release")}
    assert grown["delete"] == 200
    assert grown["release"] <= 10  # where the expected time of one is a little off


#: Commits of 1,000 jobs of some milliseconds in 8 threads, at most: one for each dozen of them, with which what has
#: ended since is written. Each thread for itself needed 980.
SLOW_COMMITS = 150
#: Of 1,000 in 50 coroutines.
COROUTINES_COMMITS = 50


def commits_of(queue: KQueue, threads: int) -> int:
    """To run :data:`JOBS` of the type "slow". Most of their ends are written by the claims of others."""
    commits: Counter[str] = Counter()

    def counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any, **named: Any) -> Any:
            commits[name] += 1
            return method(*arguments, **named)

        return count

    queue.add_jobs("slow", [None] * JOBS)
    for name in ("claim", "settle", "settle_and_claim"):
        setattr(queue.store, name, counted(name, getattr(queue.store, name)))
    assert queue.work(threads=threads, wait=False).deleted == JOBS
    assert commits["settle"] <= commits.total() / 2, commits
    return commits.total()


def test_slow_jobs_of_many_threads_share_commits(tmp_path: Path) -> None:
    """A job takes the milliseconds by which others turn the clock meanwhile."""
    clock = ManualClock(1_800_000_000.0)
    with at_a_still_clock(f"sqlite:///{tmp_path}/jobs.db", clock=clock) as queue:

        @queue.handler("slow")
        def work(job: JobInHand) -> None:
            time.sleep(0.001)
            clock.advance(0.001)
            job.delete()

        assert commits_of(queue, 8) <= SLOW_COMMITS


def test_slow_coroutines_share_commits(tmp_path: Path) -> None:
    """As above."""
    clock = ManualClock(1_800_000_000.0)
    with at_a_still_clock(f"sqlite:///{tmp_path}/jobs.db", clock=clock) as queue:

        @queue.handler("slow", concurrency=50)
        async def work(job: JobInHand) -> None:
            await asyncio.sleep(0.001)
            clock.advance(0.0002)
            job.delete()

        assert commits_of(queue, 1) <= COROUTINES_COMMITS


#: System calls for 1,000 jobs, at most. Those that wait for a thread are left out: they depend on the machine.
SYSTEM_CALLS = {
    # "others": each of the 11 transactions locks and unlocks its fence, and looks twice for the three files. A
    # few are the memory allocator's.
    "sqlite": {"fsync fdatasync": 11, "pwrite64": 840, "getpid": 2160, "sendto recvfrom poll": 60, "others": 346},
    # Each of some 30 commands takes a send, two reads, and a poll before
    # each read that finds nothing yet; "others": an ioctl for each change of the socket's time-out, four a command.
    # They grow with the commands, not with the jobs: 3,000 take 47 commands, and 300 and 260 of these.
    "mongodb": {"fsync fdatasync": 0, "pwrite64": 0, "getpid": 2300, "sendto recvfrom poll": 260, "others": 230},
}
WAITS = {"futex", "total"}


def system_calls(jobs: int, urls: list[str], trace: Path) -> Counter[str]:
    """Of a whole process that adds and runs ``jobs``."""
    child = [sys.executable, "-m", "tests.costs.child", str(jobs), *urls]
    subprocess.run(["strace", "-f", "-c", "-U", "name,calls", "-o", str(trace), *child], check=True)
    lines = [line.split() for line in trace.read_text().splitlines()]
    return Counter({words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()})


def test_a_thousand_jobs_cost_few_system_calls(pair: Pair, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        missing("strace", "apt install strace")
    # The first one makes the tables.
    _, idle, busy = (system_calls(jobs, pair.urls, tmp_path / f"{jobs}.txt") for jobs in (0, 0, JOBS))
    grown, allowed = busy - idle, SYSTEM_CALLS[pair.store]
    found = {names: sum(grown.pop(name, 0) for name in names.split()) for names in allowed}
    found["others"] = sum(number for name, number in grown.items() if name not in WAITS)
    assert not {names: number for names, number in found.items() if number > allowed[names]}, found
