"""Payloads and results: JSON values or bytes, and exactly what went in comes back. Nothing is ever pickled."""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from kqueue.model.wording import shown

JSON = "json"
BYTES = "bytes"
#: Lists and objects within each other at most.
MAX_DEPTH = 200
#: Bytes of a result at most, once encoded, unless the queue says otherwise.
MAX_RESULT = 2**20
#: Bytes of what its caller bounds.
UNBOUNDED = 2**62

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

#: Of an integer: Python makes text of one of 4,300 digits at most, by default.
_MOST_BITS = 14_000
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_SCALARS = (str, int, float, type(None))


def encode(value: object, max_bytes: int, name: str = "payload") -> tuple[bytes, str]:
    """``value`` as (stored bytes, encoding).

    Raises ``TypeError`` for what JSON has no form for (sets, objects, keys that are not str) and
    ``ValueError`` for NaN, infinities, circles, and what has over ``max_bytes`` once encoded. Both say ``name``.
    """
    encoding = BYTES if isinstance(value, bytes) else JSON
    data = value if isinstance(value, bytes) else _to_json(value, name)
    if len(data) > max_bytes:
        raise ValueError(
            f"{name}: {len(data)} bytes, and at most {max_bytes} are allowed (max_{name});"
            " store it elsewhere and give its address"
        )
    return data, encoding


def decode(data: bytes, encoding: str) -> Any:
    """The value that :func:`encode` was given. A tuple comes back as a list."""
    return data if encoding == BYTES else json.loads(data.decode("utf-8", "surrogatepass"))


def encode_result(value: object, max_bytes: int) -> bytes:
    """A result as a store keeps it: a letter that says its encoding, and its bytes. Raises as :func:`encode`."""
    data, encoding = encode(value, max_bytes, "result")
    return encoding[:1].encode() + data


def decode_result(stored: bytes) -> Any:
    """The value that :func:`encode_result` was given."""
    return decode(stored[1:], BYTES if stored[:1] == BYTES[:1].encode() else JSON)


def _to_json(value: object, name: str) -> bytes:
    try:
        text = _encoder.encode(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}{_oddity(value) or f': {error}'}") from None
    except RecursionError:
        raise ValueError(f"{name}: nested too deeply for JSON") from None
    _refuse_odd_ones(value, name)
    # A lone surrogate is a legal JSON string, which plain UTF-8 cannot hold.
    return text.encode("utf-8", "surrogatepass")


def _refuse_odd_ones(value: object, name: str) -> None:
    """Refuse what ``json`` takes and does not give back.

    Keys such as 1 or None come back as strings. And a decoder deep in a handler's stack may have less room to
    recurse than the encoder had.
    """
    pending = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"{name}: nested deeper than {MAX_DEPTH}")
        if isinstance(item, dict):
            for key, inner in item.items():
                if not isinstance(key, str):
                    raise TypeError(f"{name}{_oddity(value)}")
                if not isinstance(inner, _SCALARS):
                    pending.append((inner, depth + 1))
        elif isinstance(item, list | tuple):
            pending.extend((inner, depth + 1) for inner in item if not isinstance(inner, _SCALARS))


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


def _oddity(value: object) -> str | None:
    """``["items"][3]: datetime; ...``, to be read behind the name of ``value``; None if nothing is found.

    What lies deeper than :data:`MAX_DEPTH` is not looked at: there may be a circle.
    """
    pending: list[tuple[object, _Place | None, int]] = [(value, None, 0)]
    while pending:
        item, place, depth = pending.pop()
        odd = _odd(item)
        if odd is not None:
            return f"{place or ''}: {odd}"
        if depth < MAX_DEPTH:
            pending.extend((inner, _Place(key, place), depth + 1) for key, inner in reversed([*_within(item)]))
    return None


def _odd(item: object) -> str | None:
    if isinstance(item, dict):
        odd = next((key for key in item if not isinstance(key, str)), None)
        return None if odd is None else f"a JSON object's keys are str, got {shown(odd)}"
    if isinstance(item, float) and not math.isfinite(item):
        return f"{item} is no JSON; give None or a text"
    if isinstance(item, int) and item.bit_length() > _MOST_BITS:
        return "an integer of thousands of digits, which Python reads from no JSON; give a text"
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
