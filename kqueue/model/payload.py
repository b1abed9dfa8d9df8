"""Payloads: JSON values or bytes, and exactly what went in comes back. Nothing is ever pickled."""

import json
from typing import Any

from kqueue.model.unencodable import reason

JSON = "json"
BYTES = "bytes"
#: Lists and objects within each other at most.
MAX_DEPTH = 200

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_SCALARS = (str, int, float, type(None))


def encode(value: object, max_bytes: int) -> tuple[bytes, str]:
    """``value`` as (stored bytes, encoding).

    Raises ``TypeError`` for what JSON has no form for (sets, objects, keys that are not str) and
    ``ValueError`` for NaN, infinities, circles, and payloads over ``max_bytes`` once encoded.
    """
    encoding = BYTES if isinstance(value, bytes) else JSON
    data = value if isinstance(value, bytes) else _to_json(value)
    if len(data) > max_bytes:
        raise ValueError(
            f"payload: {len(data)} bytes, and at most {max_bytes} are allowed (max_payload);"
            " store it elsewhere and add its address"
        )
    return data, encoding


def decode(data: bytes, encoding: str) -> Any:
    """The value that :func:`encode` was given. A tuple comes back as a list."""
    return data if encoding == BYTES else json.loads(data.decode("utf-8", "surrogatepass"))


def _to_json(value: object) -> bytes:
    try:
        text = _encoder.encode(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"payload{reason(value, MAX_DEPTH) or f': {error}'}") from None
    except RecursionError:
        raise ValueError("payload: nested too deeply for JSON") from None
    _refuse_odd_ones(value)
    # A lone surrogate is a legal JSON string, which plain UTF-8 cannot hold.
    return text.encode("utf-8", "surrogatepass")


def _refuse_odd_ones(value: object) -> None:
    """Refuse what ``json`` takes and does not give back.

    Keys such as 1 or None come back as strings. And a decoder deep in a handler's stack may have less room to
    recurse than the encoder had.
    """
    pending = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"payload: nested deeper than {MAX_DEPTH}")
        if isinstance(item, dict):
            for key, inner in item.items():
                if not isinstance(key, str):
                    raise TypeError(f"payload{reason(value, MAX_DEPTH)}")
                if not isinstance(inner, _SCALARS):
                    pending.append((inner, depth + 1))
        elif isinstance(item, list | tuple):
            pending.extend((inner, depth + 1) for inner in item if not isinstance(inner, _SCALARS))
