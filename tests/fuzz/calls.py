"""Each public call of a queue, and of a job in hand: its arguments, and what may well be given for each."""

from datetime import UTC, datetime
from typing import TypeAlias

from hypothesis import strategies as st

from kqueue import Filter, JobInHand, Missed, New, Priority, RetryPolicy, State
from tests.fuzz.values import duration, text, whole
from tests.shop import NO_JOB

#: By the name of each argument, what may be given.
Arguments: TypeAlias = dict[str, st.SearchStrategy[object]]

nothing = st.none()
flag = st.booleans()
types = st.sampled_from(["mail", "part", "other"])
type_or_none = st.one_of(types, nothing)
payload = st.sampled_from([None, 1, "x", b"x", {"a": [1]}, [1.5, True]])
priority = st.sampled_from([None, *Priority, "low", 7])
few = st.sampled_from([None, 1, 3])
when = st.sampled_from([None, 0, 1e9, datetime(2026, 5, 1, tzinfo=UTC)])
job = st.sampled_from([NO_JOB])
state = st.sampled_from([*State, "done"])
hook = st.sampled_from([lambda: None])
handler = st.sampled_from([JobInHand.delete])
retry = st.sampled_from([RetryPolicy(), RetryPolicy(max_tries=1)])


def _kept(time: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(nothing, time)


#: Of :class:`kqueue.Filter`.
FILTER: Arguments = {
    "type": type_or_none,
    "containing": _kept(text),
    **{f"{what}_{side}": when for what in ("added", "ended") for side in ("since", "before")},
}
#: Of :class:`kqueue.RetryPolicy`.
POLICY: Arguments = {
    "max_tries": few,
    "delay": st.one_of(duration, st.lists(duration, max_size=2)),
    "final": st.sampled_from([(), ValueError]),
    "give_back": st.sampled_from([(), OSError]),
}
ADD: Arguments = {
    "type": types,
    "payload": payload,
    "priority": priority,
    "delay": _kept(duration),
    "run_at": when,
    "ttr": _kept(duration),
    "unique": _kept(st.just("key")),
    "unique_for": _kept(duration),
    "limit_key": _kept(st.just("key")),
    "max_tries": few,
    "retry_delay": _kept(st.one_of(duration, st.lists(duration, max_size=2))),
    "keep_done": _kept(duration),
    "tombstone": _kept(duration),
}
#: One of several unlike jobs.
NEW = st.fixed_dictionaries({}, optional={name: of for name, of in ADD.items() if name != "type"}).map(
    lambda given: New(**given)
)
HANDLER: Arguments = {
    "delete_on_success": flag,
    "retry": retry,
    "auto_renew": flag,
    "max_runtime": _kept(duration),
    "concurrency": few,
    "batch": few,
}
CRON: Arguments = {
    "tz": st.sampled_from(["UTC", "Europe/Berlin"]),
    "missed": st.sampled_from(list(Missed)),
    "name": st.one_of(nothing, st.just("nightly")),
    "priority": priority,
    "ttr": _kept(duration),
}
EXPRESSION = st.sampled_from(["* * * * *", "0 3 * * MON", "*/5 * * * * *"])
#: Of :class:`kqueue.KQueue`. What is not drawn is left away.
CALLS: dict[str, Arguments] = {
    "add_job": ADD,
    "add_jobs": {
        **{name: of for name, of in ADD.items() if name not in {"payload", "unique", "unique_for"}},
        "payloads": st.lists(st.one_of(payload, NEW), max_size=3),
    },
    "options": {
        "type": types,
        **{name: ADD[name] for name in ("priority", "delay", "ttr", "unique_for")},
        "retry": retry,
        "retry_delay": duration,
        "max_tries": few,
        "keep_done": duration,
        "tombstone": duration,
        "delete_on_success": flag,
        "max_age": _kept(duration),
    },
    "add_handler": {"type": types, "function": handler, **HANDLER},
    "around": {"function": hook},
    "on_start": {"function": hook},
    "on_stop": {"function": hook},
    "remove_handler": {"type": types},
    "types": {},
    "limit": {"type": types, "running": few, "running_per_key": few, "starts": few, "period": duration},
    "add_cron": {"expression": EXPRESSION, "type": types, "payload": payload, **CRON},
    "schedules": {"ticks": few},
    "has_coroutines": {},
    "run_jobs": {"count_limit": few, "time_limit_ms": st.just(1), "types": st.lists(types)},
    "work": {"threads": st.just(1), "time_limit_ms": st.just(1), "wait": st.just(False), "types": st.lists(types)},
    "stop": {},
    "flush": {},
    "delete_job": {"job": job},
    "renew_job": {"job": job},
    "unget_job": {"job": job, "priority": priority, "delay": duration},
    "retry_job": {"job": job, "reason": text, "delay": _kept(duration)},
    "unsubscribe": {"function": hook},
    "subscribe": {"function": hook},
    "get_job": {"job_id": job},
    "ends": {"type": type_or_none, "after": st.sampled_from([None, "1"]), "limit": few},
    "wait": {"job_id": job, "timeout": st.sampled_from([0, 0.01])},
    "wait_all": {"job_ids": st.lists(job), "timeout": st.sampled_from([0, 0.01])},
    "job_log": {"job_id": job, "after": few, "limit": few},
    "find_job": {"type": types, "unique": st.just("key")},
    "change_job": {"job": job, "priority": priority, "delay": _kept(duration), "run_at": when},
    "jobs": {"type": type_or_none, "state": state, "limit": few, "after": _kept(job)},
    "counts": {"type": type_or_none},
    "stats": {},
    "retry_dead": {"reason": text, "wanted": st.just(Filter()), "limit": few},
    "retry_delayed": {"wanted": st.just(Filter()), "limit": few},
    "search": {"state": state, "wanted": st.just(Filter()), "limit": few, "after": _kept(job)},
    "dead_jobs": {"wanted": st.just(Filter()), "limit": few},
    "delete_dead": {"wanted": st.just(Filter()), "limit": few},
    "pause": {"type": type_or_none},
    "resume": {"type": type_or_none},
    "paused": {},
    "workers": {},
    "purge_jobs": {"type": types},
    "why": {"job_id": job},
    "checkup": {},
    "empty_tubes": {"beginning": text},
    "sweep": {},
    "findings": {"limit": few},
}
#: What is called otherwise, and why.
ELSEWHERE = {
    "from_parts": "takes what assemble has joined",
    "from_config": "reads a file: see tests/config",
    "open": "takes nothing, and is what each test begins with",
    "close": "takes nothing, and is what each test ends with",
    "wait_async": "a coroutine: of wait",
    "wait_all_async": "a coroutine: of wait_all",
    "handler": "a decorator: of add_handler",
    "cron": "a decorator: of add_cron",
    "backup": "writes where it is told: with paths of its own",
    "restore": "writes where it is told: with paths of its own",
}
#: Without which a call is not one.
NEEDED = {
    **dict.fromkeys(("add_job", "options", "remove_handler", "limit", "purge_jobs"), ("type",)),
    "add_jobs": ("type", "payloads"),
    "find_job": ("type", "unique"),
    "wait_all": ("job_ids",),
    "add_handler": ("type", "function"),
    "add_cron": ("expression", "type"),
    "retry_job": ("job", "reason"),
    "retry": ("reason",),
    "progress": ("done", "total"),
    "log": ("text",),
    "retry_dead": ("reason",),
    "search": ("state",),
    "empty_tubes": ("beginning",),
    **dict.fromkeys(("around", "on_start", "on_stop", "subscribe", "unsubscribe"), ("function",)),
    **dict.fromkeys(("delete_job", "renew_job", "unget_job", "change_job"), ("job",)),
    **dict.fromkeys(("get_job", "job_log", "wait", "why"), ("job_id",)),
}
#: Of :class:`kqueue.JobInHand`.
IN_HAND: dict[str, Arguments] = {
    "delete": {"result": payload},
    "progress": {"done": whole, "total": whole, "note": payload},
    "log": {"text": text},
    "renew": {},
    "unget": {"priority": priority, "delay": duration},
    "retry": {"reason": text, "delay": _kept(duration)},
}
_schemes = ["sqlite:///", "mongodb://h/", "mongodb://", "mongodb+srv://", "beanstalk://", "beanstalk+unix:///"]
_paths = [
    "%00",
    "%ED%A0%80",
    "x?mode=9",
    "x?busy_timeout=nan",
    "x?busy_timeout=1e999",
    "x?timeout=-1",
    "h:99999",
    "[::",
]
_urls = st.builds("{}{}".format, st.sampled_from(_schemes), st.one_of(st.sampled_from(_paths), text))
#: Of :class:`kqueue.KQueue` itself.
MADE: Arguments = {
    "store": st.sampled_from(["memory:", "sqlite:///", "mongodb://h/", "sqlite:///x?busy_timeout="]) | _urls,
    "broker": st.one_of(nothing, _urls),
    "retry_delay": duration,
    "max_tries": few,
    "delete_on_success": flag,
    "max_age": _kept(duration),
    "max_crashes": st.just(3),
    "sweep_interval": duration,
    "settle_ms": duration,
    "max_payload": whole,
    "max_result": whole,
    "prefix": st.sampled_from([None, "shop-"]),
    "create": flag,
    "log_payloads": flag,
}
