"""Payloads come back as they went in, or are refused."""

import json
import math
from collections import OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kqueue.model.payload import BYTES, JSON, decode, encode

MANY = 2**30

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values | st.binary())
def test_what_comes_back_equals_what_went_in(value: Any) -> None:
    back = decode(*encode(value, MANY))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        b"",
        b"\0",
        "\0",
        b"a\r\nb",
        "a\r\nb",
        "Grüße, 世界 🎈",
        "\ud800 alone",
        b"\xff\xfe",
        "x" * 3_000_000,
        b"\0" * 3_000_000,
        {},
        [],
        2**80,
        -0.0,
        [[]],
        {"": {"": None}},
        OrderedDict(a=1),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_odd_but_legal_payloads(value: Any) -> None:
    data, encoding = encode(value, MANY)
    assert encoding == (BYTES if isinstance(value, bytes) else JSON)
    assert decode(data, encoding) == value


def test_a_tuple_comes_back_as_a_list() -> None:
    assert decode(*encode((1, ("a", ())), MANY)) == [1, ["a", []]]


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        object(),
        {"a": b"bytes within"},
        bytearray(b"x"),
        1j,
        {1: "a"},
        {"deep": [{None: 1}]},
        [{True: 1}],
        {("a",): 1},
    ],
)
def test_what_json_has_no_form_for_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="^payload"):
        encode(value, MANY)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            {"items": [1, 2, 3, datetime(2026, 5, 1, tzinfo=UTC)]},
            'payload["items"][3]: datetime has no form in JSON; give its text, as by .isoformat()',
        ),
        ([{"a": Decimal(1)}], 'payload[0]["a"]: Decimal has no form in JSON; give its text, as by str()'),
        ({"a": {"b": {1: 2}}}, 'payload["a"]["b"]: a JSON object\'s keys are str, got 1'),
        ({"a": [1.0, math.inf]}, 'payload["a"][1]: inf is no JSON; give None or a text'),
        ({1, 2}, "payload: set has no form in JSON; give a list, as by sorted()"),
        (object(), "payload: object has no form in JSON; give what it is made of"),
    ],
)
def test_what_is_no_json_is_named_by_its_place_with_what_to_do(value: object, said: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        encode(value, MANY)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": -math.inf}])
def test_what_json_cannot_hold_is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError, match="^payload"):
        encode(value, MANY)


def test_circles_and_endless_depth_are_value_errors() -> None:
    circle: list[object] = []
    circle.append(circle)
    deep: list[object] = []
    for _ in range(200_000):
        deep = [deep]
    for value in (circle, deep):
        with pytest.raises(ValueError, match="^payload: "):
            encode(value, MANY)


def test_a_number_too_long_to_come_back_is_refused() -> None:
    with pytest.raises(ValueError, match="^payload: "):
        encode(10**5000, MANY)


@pytest.mark.parametrize("value", [b"12345", "123"])
def test_the_encoded_size_is_limited_and_the_error_says_how_much(value: object) -> None:
    assert encode(value, 5)
    with pytest.raises(ValueError, match="payload: 5 bytes, and at most 4 are allowed"):
        encode(value, 4)


def test_stored_json_is_plain_json() -> None:
    data, _ = encode({"a": [1, "ü"]}, MANY)
    assert json.loads(data) == {"a": [1, "ü"]}
