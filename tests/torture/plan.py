"""What producers add and what handlers do: pure, from random numbers that a seed gives."""

import hashlib
import json
from random import Random
from typing import Any, NamedTuple

TYPES = ("mail", "resize", "report")
#: Seconds. Short, so that a frozen worker outlives it soon.
TTR_S = 2.0
#: Of every KQueue that takes part.
OPTIONS: dict[str, Any] = {"retry_delay": 0.3, "sweep_interval": 0.5, "max_crashes": 3}
#: A claim with a higher fence than this is deleted by its handler, so that every job comes to an end.
LAST_ODD_FENCE = 5
MB = 2**20
#: (largest size in bytes, weight). All producers together add some megabytes a second.
_SIZES = ((0, 80), (200, 600), (5_000, 280), (60_000, 30), (MB, 5))
#: (act, weight) of a run. What sleeps is rare: each keeps a worker for seconds.
_ACTS = (
    ("delete", 1680),
    ("slow", 120),
    ("retry", 60),
    ("unget", 60),
    ("raise", 60),
    ("forget", 12),
    ("renew", 2),
    ("late delete", 2),
    ("late retry", 1),
    ("late renew", 1),
)
#: What comes after a late act: it has the job in hand while the late one tries to settle.
HOLD = "hold"
#: Acts that end in the job's delete.
DELETES = frozenset({"delete", "slow", "renew", "late delete", "late renew", HOLD})
#: Acts after which the job is to run again because its handler said so.
ASKED = frozenset({"retry", "unget", "raise", "forget"})


class Addition(NamedTuple):
    """One call of ``add_jobs``, or of ``add_job`` where there is one payload."""

    type: str
    payloads: list[object]
    priority: int
    #: Seconds.
    delay: float


def addition(random: Random) -> Addition:
    """What a producer adds next."""
    count = 1 if random.random() < 0.7 else random.randint(2, 20)
    return Addition(
        type=random.choice(TYPES),
        payloads=[_payload(random) for _ in range(count)],
        priority=random.choice((512, 65536, 65536, 65536, 2**20)),
        delay=0.0 if random.random() < 0.9 else random.uniform(0.1, 2.0),
    )


def digest(payload: object) -> str:
    """SHA-256 of a payload: of the bytes themselves, or of a JSON value in one fixed form."""
    data = payload if isinstance(payload, bytes) else b"json" + json.dumps(payload, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def act(payload_digest: str, fence: int) -> str:
    """What the handler does with a job. The same job may be treated otherwise at its next claim."""
    if fence > LAST_ODD_FENCE:
        return "delete"
    return HOLD if is_late(_drawn(payload_digest, fence - 1)) else _drawn(payload_digest, fence)


def is_late(act: str) -> bool:
    """Whether it sleeps past its TTR."""
    return act.startswith("late")


def _drawn(payload_digest: str, fence: int) -> str:
    names, weights = zip(*_ACTS, strict=True)
    return str(Random(f"{payload_digest}{fence}").choices(names, weights)[0])


def _payload(random: Random) -> object:
    sizes, weights = zip(*_SIZES, strict=True)
    most = random.choices(sizes, weights)[0]
    # The largest comes whole at times: a limit is where things break.
    size = most if random.random() < 0.2 else random.randint(0, most)
    data = random.randbytes(size)
    return data if random.random() < 0.8 else {"text": data.decode("latin-1"), "list": [size, None, True, 0.5]}
