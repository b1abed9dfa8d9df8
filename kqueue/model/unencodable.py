"""Why a value is no JSON: the first place in it that is not, and what to say there instead."""

import json
import math
from collections.abc import Iterator
from typing import NamedTuple

#: By the name of a class or one of its bases, so that nothing has to be imported for it.
_INSTEAD = {
    "date": "give its text, as by .isoformat()",  # a datetime is one
    "time": "give its text, as by .isoformat()",
    "timedelta": "give its seconds, as by .total_seconds()",
    "Decimal": "give its text, as by str()",
    "UUID": "give its text, as by str()",
    "PurePath": "give its text, as by str()",
    "Enum": "give its value, as by .value",
    "set": "give a list, as by sorted()",
    "frozenset": "give a list, as by sorted()",
    "bytes": "only a payload that is bytes as a whole is taken; give a text, as by base64.b64encode().decode()",
}
_OTHERS = "give what it is made of: a dict, a list, a str, a number, a bool or None"


class _Place(NamedTuple):
    """Where something is: below which key or index, of what."""

    key: str | int
    above: "_Place | None"

    def __str__(self) -> str:
        """``["items"][3]``."""
        parts: list[str] = []
        place: _Place | None = self
        while place is not None:
            parts.append(f"[{json.dumps(place.key)}]")
            place = place.above
        return "".join(reversed(parts))


def reason(value: object, most_depth: int) -> str | None:
    """``["items"][3]: datetime; ...``, to be read behind the name of ``value``; None if nothing is found.

    What lies deeper than ``most_depth`` is not looked at: there may be a circle.
    """
    pending: list[tuple[object, _Place | None, int]] = [(value, None, 0)]
    while pending:
        item, place, depth = pending.pop()
        odd = _odd(item)
        if odd is not None:
            return f"{place or ''}: {odd}"
        if depth < most_depth:
            pending.extend((inner, _Place(key, place), depth + 1) for key, inner in reversed([*_within(item)]))
    return None


def _odd(item: object) -> str | None:
    if isinstance(item, dict):
        odd = next((key for key in item if not isinstance(key, str)), None)
        return None if odd is None else f"a JSON object's keys are str, got {odd!r:.80}"
    if isinstance(item, float) and not math.isfinite(item):
        return f"{item} is no JSON; give None or a text"
    if item is None or isinstance(item, str | int | float | list | tuple):
        return None
    names = [cls.__name__ for cls in type(item).__mro__]
    instead = next((_INSTEAD[name] for name in names if name in _INSTEAD), _OTHERS)
    return f"{names[0]} has no form in JSON; {instead}"


def _within(item: object) -> Iterator[tuple[str | int, object]]:
    if isinstance(item, dict):
        yield from item.items()
    elif isinstance(item, list | tuple):
        yield from enumerate(item)
