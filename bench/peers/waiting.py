"""Jobs that wait 10 ms: each peer runs them in its own threads, coroutines or processes, so many at once.

Only the run is measured. The jobs are in the queue before, each an entry of its own, added without waiting for the
disk.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from bench import queues
from bench.figures import Findings, Row, Table, interleaved
from bench.peers import work
from bench.peers.contenders import Contender
from bench.peers.goals import to_fastest
from bench.peers.trial import Trial
from bench.show import tell

QUESTION = (
    "Of handlers that wait, what part of what their number allows do KQueue and other Python job queues reach?"
)

#: Seconds that each handler sleeps.
SLEEP_S = 0.010
#: Handlers at once, each number in a table of its own.
HANDS = (8, 32)
#: What each documentation has for work that waits. Celery's names greenlets for it; it also has threads.
KINDS = {
    "kqueue": ["threads"],
    "rq": ["processes"],
    "celery": ["threads", "greenlets"],
    "dramatiq": ["threads"],
    "huey": ["threads"],
    "saq": ["coroutines"],
    "procrastinate": ["coroutines"],
}
#: Those that run far fewer a second than their hands allow, and how many keep them busy for a second or more.
A_SECOND_OF = {"rq": 200, "celery": 200, "saq": 1000, "procrastinate": 300}


def compare(running: Sequence[Contender], rounds: int, seconds: float) -> Findings:
    """The tables and goals: each round has as many jobs as take so many seconds at best."""
    contenders = list(of_each_kind(running))
    measure = {
        _key(one, hands): partial(part_of_ideal, one, hands, seconds) for one in contenders for hands in HANDS
    }
    findings = found(interleaved(measure, rounds, tell), contenders)
    findings.notes.append(
        f"In each round as many jobs as take {seconds:g} s at best; of RQ, Celery, SAQ and Procrastinate at most "
        f"{', '.join(f'{round(seconds * jobs):,}' for jobs in A_SECOND_OF.values())}."
    )
    return findings


def found(figures: Mapping[str, list[float]], contenders: Sequence[Contender]) -> Findings:
    """A table for each number of hands, and each KQueue beside the fastest peer in it."""
    findings = Findings(QUESTION)
    ours = [one.name for one in contenders if one.is_ours]
    peers = [one.name for one in contenders if not one.is_ours]
    for hands in HANDS:
        rows = [Row(one.name, figures[_key(one, hands)], one.durability) for one in contenders]
        ideal = f"of {hands / SLEEP_S:,.0f} jobs/s"
        findings.tables.append(Table(f"handlers that sleep 10 ms, {hands} at once", ideal, rows))
        for name in ours:
            findings.goals += to_fastest(f"{hands} at once, {name}", rows, name, peers, 1)
    return findings


def part_of_ideal(contender: Contender, hands: int, seconds: float) -> float:
    """What one worker reached of the rate at which all of its hands always have a job."""
    contender.empty()
    ideal = hands / SLEEP_S
    jobs = round(seconds * min(ideal, A_SECOND_OF.get(contender.module, ideal)))
    wanted = {work.SLEEP_S: str(SLEEP_S), work.HANDS: str(hands), work.KIND: contender.kind}
    with queues.folder() as folder:
        folder.chmod(0o755)
        trial = Trial(contender, jobs, folder / "report.json", wanted)
        with contender.unsynced() as url:
            trial.add("add_in_bulk", url)
        # What a peer leaves behind on a Redis or in this folder is thrown away, so nobody waits for its end.
        return jobs / trial.work(gently=contender.is_ours or not contender.is_emptied) / ideal


def of_each_kind(contenders: Iterable[Contender]) -> Iterable[Contender]:
    """Each once for each kind of hands that it has."""
    for one in contenders:
        queue, _, server = one.name.partition(", ")
        for kind in KINDS[one.module]:
            yield replace(one, name=f"{queue} {kind}, {server}", kind=kind)


def _key(contender: Contender, hands: int) -> str:
    return f"{contender.name}, {hands} at once"
