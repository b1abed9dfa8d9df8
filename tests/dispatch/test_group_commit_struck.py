"""Whatever thread an exception from outside strikes, and wherever: those that add with it are told what is so."""

import os
import random
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from kqueue import AddFailed
from kqueue.dispatch import group_commit
from kqueue.dispatch.group_commit import GroupCommit
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import SystemClock
from tests.dispatch.sharing import Stop, row, strike
from tests.tubes import PATIENCE_S, run

THREADS = 6
#: Strikes of a sample, and of the proof.
FEW, MANY = 60, 5_000


class Producer:
    """Adds until it is told to end. It may be struck in its own bookkeeping, which errs to the safe side."""

    def __init__(self, group: GroupCommit, is_over: threading.Event) -> None:
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self.others: list[BaseException] = []
        self._group, self._is_over = group, is_over
        self.thread = run(self._run)

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                while not self._is_over.is_set():
                    with suppress(Stop):
                        self._add()
            except Stop:  # within the exit of that
                continue

    def _add(self) -> None:
        one = row()
        try:
            self._group.add([one])
            self.acknowledged.append(one.id)
        except AddFailed as error:
            assert {*error.taken, *error.not_taken, *error.unknown} == {one.id}
            self.refused += error.not_taken
        except Exception as error:
            self.others.append(error)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # one was struck in its loop
@pytest.mark.parametrize("strikes", [FEW, pytest.param(MANY, marks=pytest.mark.proof)])
def test_threads_that_add_and_are_struck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strikes: int) -> None:
    seed = int(os.environ.get("TEST_SEED") or random.randrange(2**32))
    print(f"seed {seed}")
    dice = random.Random(seed)
    monkeypatch.setattr(group_commit, "PATIENCE_S", 0.05)
    store = SqliteStore(tmp_path / "jobs.db", synchronous="OFF", busy_timeout=PATIENCE_S)
    group = GroupCommit(store, SystemClock().monotonic)
    is_over = threading.Event()
    producers = [Producer(group, is_over) for _ in range(THREADS)]
    for _ in range(strikes):
        strike(dice.choice(producers).thread)
        is_over.wait(dice.uniform(0, 0.01))  # somewhere within an add
    is_over.set()
    for producer in producers:
        producer.thread.join(PATIENCE_S)
    assert not any(producer.thread.is_alive() for producer in producers), "one waits for ever"
    there = {one.id for one in store.find("t", "ready", None, 10**7)}
    store.close()
    assert [producer.others for producer in producers if producer.others] == []
    acknowledged = {id for producer in producers for id in producer.acknowledged}
    assert acknowledged - there == set()
    assert there & {id for producer in producers for id in producer.refused} == set()
    assert acknowledged
