"""A job that may have killed its worker runs alone, also where a neighbour runs for minutes: in another process."""

from tests.tubes import await_true
from tests.worker.works import Works, is_there

KILLERS = 2


def test_killers_are_dead_while_a_neighbour_runs_on_and_all_others_have_run(works: Works) -> None:
    """It counts deaths and runs. How many seconds that takes says ``bench.killers``."""
    (long,) = works.add("wait")
    killers = works.add(*["die"] * KILLERS)
    good = works.add(*["work"] * 20)
    others = works.add(*["work"] * 20, type="limited")
    with works.worker("--processes", "1", "--threads", "2") as worker:
        await_true(lambda: works.queue.counts("t")["dead"] == KILLERS)
        runs, log = works.runs(), works.log.read_text()
        deaths = log.count("ended: signal SIGKILL")
        assert sum(runs[id] for id in killers) == deaths
        assert 3 * KILLERS <= deaths <= 6 * KILLERS, "three alone for each, and some in which it was not known who"
        assert log.count("is replaced: a job there is to run alone") >= 1
        [row] = works.queue.store.get([long])
        assert row.state == "running", "nobody has ended it for them"
        assert works.runs()[long] <= row.tries <= 1 + deaths - 3 * KILLERS
        await_true(lambda: not works.queue.counts("t")["ready"] and not sum(works.queue.counts("limited").values()))
        assert all(works.ledger("end", id=id) for id in (*good, *others))
        kept = works.ledger("begin", id=long)[-1]["pid"]
        assert is_there(kept)
        works.let_go()
        await_true(lambda: works.queue.counts("t")["running"] == 0)
        await_true(lambda: not is_there(kept))
        assert worker.stop() == 0
    assert works.queue.get_job(long) is None, "it has ended in its own time"


def test_who_only_ends_what_it_has_in_hand_is_not_waited_for_longer_than_others(works: Works) -> None:
    """At a stop it has the grace, as all have."""
    works.add("wait")
    works.add("die")
    with works.worker("--threads", "2", "--grace", "0") as worker:
        await_true(lambda: works.queue.counts("t")["dead"] == 1)
        assert worker.stop() == 1
    [job] = works.queue.jobs("t", state="ready")
    assert job.payload == "wait"
