"""What handlers do with their jobs, as a script says; and what other processes do meanwhile."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto

from kqueue import JobInHand, KQueueError
from kqueue.system.clock import ManualClock
from tests.machines.ledger import Key, Ledger
from tests.machines.process import Killed, Process

#: Seconds until a retry that a handler asks for.
ASKED_RETRY_S = 5.0


class Act(Enum):
    """What a handler does with its job."""

    DELETE = auto()
    DELETE_AND_RAISE = auto()
    DELETE_BY_ID = auto()
    DELETE_AND_FLUSH = auto()
    RETRY = auto()
    RETRY_MUCH_LATER = auto()
    RAISE = auto()
    RETURN = auto()
    UNGET = auto()
    UNGET_AS_URGENT = auto()
    UNGET_FOR_LATER = auto()
    RENEW = auto()
    TAKE_LONG = auto()
    OUTLIVE_THE_LEASE = auto()
    OUTLIVE_AND_RENEW = auto()
    SEE_OTHERS_DELETE_IT = auto()
    SEE_OTHERS_RUN = auto()
    EXIT = auto()
    INTERRUPT = auto()
    DIE = auto()


#: Those that are a fault: the lease is outlived, or the process dies.
FAULTY = frozenset({Act.OUTLIVE_THE_LEASE, Act.OUTLIVE_AND_RENEW, Act.DIE})


class Exited(SystemExit):
    """A handler's own, told from what ends the test run."""


class Interrupted(KeyboardInterrupt):
    """A handler's own, told from what ends the test run."""


class Stage:
    """Where the handlers of all processes play. Once the script is at its end, each deletes its job."""

    def __init__(self, ledger: Ledger, clock: ManualClock, processes: Sequence[Process]) -> None:
        """``processes``: as the machine keeps them, so one that is replaced is seen."""
        self.ledger = ledger
        self.clock = clock
        self.processes = processes
        self.script: deque[Act] = deque()

    def handle_batch(self, process: Process, jobs: Sequence[JobInHand]) -> None:
        """All of them start at once; what one takes of the time, all of them lose."""
        for job in jobs:
            self.ledger.began(job)
        for job in jobs:
            self._act(process, job, beside=len(jobs) - 1)

    def handle(self, process: Process, job: JobInHand) -> None:
        self.ledger.began(job)
        self._act(process, job)

    def _act(self, process: Process, job: JobInHand, beside: int = 0) -> None:
        """``beside``: jobs of the same call, which are not renewed when it is."""
        act = self.script.popleft() if self.script else Act.DELETE
        if beside and act is Act.RENEW:
            self.ledger.strike(process.name)
        finish = lambda: self.finish(job)  # noqa: E731
        match act:
            case Act.DELETE:
                finish()
            case Act.DELETE_AND_RAISE:
                finish()
                raise RuntimeError("after its delete")
            case Act.DELETE_BY_ID:
                self.ledger.unwanted.add(job.id)
                process.queue.delete_job(job.id)
            case Act.DELETE_AND_FLUSH:
                finish()
                process.queue.flush()
            case Act.RETRY:
                job.retry("asked for", delay=ASKED_RETRY_S)
            case Act.RETRY_MUCH_LATER:
                job.retry("asked for", delay=4000)
            case Act.RAISE:
                raise ValueError("the handler fails")
            case Act.RETURN:
                return
            case Act.UNGET:
                job.unget(delay=1)
            case Act.UNGET_AS_URGENT:
                job.unget(priority="urgent", delay=1)
            case Act.UNGET_FOR_LATER:
                job.unget(delay=30)
            case Act.RENEW:
                self.work(process, job.ttr * 0.9)
                job.renew()
                self.work(process, job.ttr * 0.9)
                self.another(process).queue.sweep()
                finish()
            case Act.TAKE_LONG:
                self.work(process, 0.15)
                self.others_act(process)
                finish()
            case Act.OUTLIVE_THE_LEASE:
                self.work(process, job.ttr + 1)
                self.others_act(process)
                finish()
            case Act.OUTLIVE_AND_RENEW:
                self.work(process, job.ttr + 1)
                self.others_act(process)
                job.renew()
                finish()
            case Act.SEE_OTHERS_DELETE_IT:
                self.ledger.unwanted.add(job.id)
                self.another(process).queue.delete_job(job.id)
                job.retry("too late")
            case Act.SEE_OTHERS_RUN:
                self.others_act(process)
                finish()
            case Act.EXIT:
                raise Exited
            case Act.INTERRUPT:
                raise Interrupted
            case Act.DIE:
                process.kill()
                raise Killed(process.name)

    def finish(self, job: JobInHand) -> None:
        key = Key(job.id, job.fence)
        self.ledger.finished.add(key)
        job.delete(result=key)

    def work(self, process: Process, seconds: float) -> None:
        """Time passes in a handler, and the watchdog looks. What it cannot settle then, the loop does."""
        self.clock.advance(seconds)
        now = self.clock.monotonic()
        for jobs in process.queue.registry.in_hand():
            if now >= jobs.wants_attention_at(now):
                with suppress(KQueueError):
                    jobs.attend(now)

    def others_act(self, process: Process) -> None:
        """Another process sweeps and runs: what falls to it, it deletes."""
        other = self.another(process)
        script, self.script = self.script, deque()
        with suppress(KQueueError):
            other.queue.sweep()
        with suppress(KQueueError):
            other.queue.run_jobs()
        self.script = script

    def another(self, process: Process) -> Process:
        place = self.processes.index(process)
        return self.processes[(place + 1) % 2]
