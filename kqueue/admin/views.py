"""What the command line and a page show of a job, as JSON values."""

import base64
from collections.abc import Sequence

from kqueue.admin.why import Answer
from kqueue.model.history import LogLine
from kqueue.model.job import Job, State
from kqueue.model.wording import moment


def answer(answer: Answer) -> dict[str, str]:
    """What keeps a job from running."""
    return {"cause": answer.cause.value, "text": answer.text}


def summary(job: Job) -> dict[str, str | int | None]:
    """A job as a line of a list."""
    return {
        "id": job.id,
        "type": job.type,
        "state": job.state.value,
        "tries": job.tries,
        "when": moment(_when(job)),
        "reason": job.reason,
    }


def _when(job: Job) -> float:
    """When its last run ended, of one that has ended; when it runs, of one that is to."""
    return job.runs[-1].ended_at if job.state in {State.DEAD, State.DONE} and job.runs else job.run_at


def details(job: Job) -> dict[str, object]:
    """A job as it stands, but for its payload, its result and its runs."""
    return {
        "id": job.id,
        "type": job.type,
        "state": job.state.value,
        "priority": job.priority,
        "tries": job.tries,
        "max_tries": job.max_tries,
        "fence": job.fence,
        "created_at": moment(job.created_at),
        "scheduled_for": moment(job.scheduled_for),
        "run_at": moment(job.run_at),
        "finished_at": None if job.finished_at is None else moment(job.finished_at),
        "ttr": job.ttr,
        "unique": job.unique,
        "limit_key": job.limit_key,
        "reason": job.reason,
        **_progress(job),
    }


def _progress(job: Job) -> dict[str, object]:
    """Nothing where none was told."""
    return {} if job.progress is None else {"progress": job.progress._asdict()}


def runs(job: Job) -> list[dict[str, str | None]]:
    """How its runs ended, the oldest first."""
    return [
        {
            "begun": None if run.begun_at is None else moment(run.begun_at),
            "ended": moment(run.ended_at),
            "by": run.worker,
            "reason": run.reason,
            "traceback": run.traceback,
        }
        for run in job.runs
    ]


def log(lines: Sequence[LogLine]) -> list[dict[str, str | int]]:
    """What its runs have told, the oldest first."""
    return [{"number": line.number, "at": moment(line.at), "try": line.tries, "text": line.text} for line in lines]


def payload(job: Job) -> dict[str, object]:
    """Under one of two names, so that bytes are never taken for a text."""
    return _value("payload", job.payload)


def result(job: Job) -> dict[str, object]:
    """The same; nothing where there is none."""
    return {} if job.result is None else _value("result", job.result)


def _value(name: str, value: object) -> dict[str, object]:
    if isinstance(value, bytes):
        return {f"{name}_base64": base64.b64encode(value).decode("ascii")}
    return {name: value}
