"""Jobs that do nothing: each peer adds them in bulk and runs them, and adds some one by one."""

from collections.abc import Callable
from functools import partial

from bench import queues
from bench.figures import Findings, Row, Table, interleaved
from bench.peers.contenders import DURABLE, Contender
from bench.peers.goals import to_fastest
from bench.peers.trial import Trial
from bench.show import tell

QUESTION = "How does KQueue compare with other Python job queues, on the same work and the same machine?"


def compare(running: list[Contender], rounds: int, jobs: int, singles: int) -> Findings:
    """The tables and goals of so many ``jobs`` in each round, and ``singles`` of them added one by one."""
    measure: dict[str, Callable[[], tuple[float, float]]] = {
        one.name: partial(rates, one, jobs, singles) for one in running
    }
    findings = found(interleaved(measure, rounds, tell), running)
    findings.notes.append(f"{jobs:,} jobs in each round, {singles:,} of them added one by one.")
    return findings


def rates(contender: Contender, jobs: int, singles: int) -> tuple[float, float]:
    """(jobs a second from add to delete, jobs a second added one by one)."""
    contender.empty()
    with queues.folder() as folder:
        folder.chmod(0o755)
        bulk = Trial(contender, jobs, folder / "bulk.json")
        adding = bulk.add("add_in_bulk")
        running = bulk.work()
        left = bulk.left()
        assert left == 0, f"{contender.name}: {left} jobs are left"
        single = Trial(contender, singles, folder / "singles.json")
        adding_singly = single.add("add_one_by_one")
        if not contender.is_emptied:
            single.work()
    return jobs / (adding + running), singles / adding_singly


def found(figures: dict[str, list[tuple[float, float]]], running: list[Contender]) -> Findings:
    """The tables and goals. KQueue with SQLite and beanstalkd stands first."""
    notes = {contender.name: contender.durability for contender in running}
    whole, singly = (
        [Row(name, [values[which] for values in of_rounds], notes[name]) for name, of_rounds in figures.items()]
        for which in (0, 1)
    )
    peers = [contender.name for contender in running if not contender.is_ours]
    durable = [contender.name for contender in running if not contender.is_ours and contender.durability == DURABLE]
    first = running[0].name if running and running[0].is_ours else ""
    return Findings(
        QUESTION,
        [
            Table("add in bulk, run and delete; one worker process", "jobs/s", whole),
            Table("add one by one", "jobs/s", singly),
        ],
        [
            *to_fastest("add, run and delete", whole, first, peers, 10),
            *to_fastest("add, run and delete", whole, first, durable, 12, "that is as durable"),
            *to_fastest("add one by one", singly, first, durable, 1, "that is as durable"),
            *(
                goal
                for ours in running
                if "MongoDB" in ours.name
                for goal in to_fastest("KQueue on MongoDB", whole, ours.name, peers, 1)
            ),
        ],
    )
