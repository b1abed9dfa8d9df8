"""The bytes of pointers and commands."""

import math
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kqueue.brokers.beanstalk import wire
from kqueue.contracts.broker import Pointer
from kqueue.system.mint import IdMint

ID = "0" * 9 + "v" * 19
BODY = b"KQ1 mail.send/now 65536 1700000000.250000 " + ID.encode()

ids = st.text("0123456789abcdefghijklmnopqrstuv", min_size=28, max_size=28)
types = st.from_regex(r"[A-Za-z0-9_./][A-Za-z0-9_./-]{0,189}", fullmatch=True)
pointers = st.builds(
    Pointer,
    type=types,
    priority=st.integers(0, 2**32 - 1),
    put_at=st.integers(0, 4 * 10**15).map(lambda microseconds: microseconds / 1e6),
    ids=st.lists(ids, min_size=1, max_size=100).map(tuple),
)


@given(pointers)
def test_a_pointer_comes_back_as_it_went(pointer):
    assert wire.decode(wire.encode(pointer)) == pointer


def test_a_body_is_one_readable_line():
    assert wire.encode(Pointer("mail.send/now", 65536, 1_700_000_000.25, (ID,))) == BODY


@given(st.binary(max_size=200))
@example(b"")
@example(b"KQ1")
@example(BODY + b"\n")
@example(BODY + b" ")
@example(b" " + BODY)
@example(BODY.replace(b"KQ1", b"KQ2"))
@example(BODY.replace(b" ", b"  ", 1))
@example(BODY.replace(b"65536", b"065536"))
@example(BODY.replace(b"65536", b"-1"))
@example(BODY.replace(b"65536", b"4294967296"))
@example(BODY.replace(b"65536", "٣".encode()))
@example(BODY.replace(b".250000", b""))
@example(BODY.replace(b".250000", b".25"))
@example(BODY.replace(b"1700000000", b"99999999999999999999"))
@example(BODY.replace(b".250000", b".999999").replace(b"1700000000", b"99999999999"))
@example(BODY.replace(b"mail", b"-mail"))
@example(BODY.replace(b"mail", b"ma il"))
@example(BODY.replace(b"mail.send/now", b"a" * 191))
@example(BODY.replace(b"v", b"w", 1))
@example(BODY.replace(b"v", b"V", 1))
@example(BODY[:-1])
@example(BODY + b"0")
@example(BODY + (b" " + ID.encode()) * 100)
def test_garbage_is_refused_with_one_clear_error(body):
    with pytest.raises(ValueError, match=r"^expected a pointer 'KQ1 <type> <priority> <put_at> <id> \.\.\.', got"):
        wire.decode(body)


@given(pointers, st.randoms(use_true_random=False))
def test_a_damaged_pointer_is_refused_or_is_another_whole_pointer(pointer, chance):
    body = bytearray(wire.encode(pointer))
    damage(body, chance)
    try:
        decoded = wire.decode(bytes(body))
    except ValueError:
        return
    assert wire.decode(wire.encode(decoded)) == decoded


def damage(body: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(body))
    chance.choice(
        [
            lambda: body.__setitem__(place, chance.randrange(256)),
            lambda: body.__delitem__(place),
            lambda: body.insert(place, chance.randrange(256)),
            lambda: body.__delitem__(slice(place, None)),
        ]
    )()


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": ""},
        {"type": "line\r\nbreak"},
        {"type": "\x7f"},
        {"type": "*"},
        {"type": "x" * 191},
        {"type": "☃" * 64},
        {"priority": -1},
        {"priority": 2**32},
        {"priority": True},
        {"priority": 1.5},
        {"put_at": -1.0},
        {"put_at": math.nan},
        {"put_at": math.inf},
        {"put_at": 1e11},
        {"ids": ()},
        {"ids": ("short",)},
        {"ids": ("' OR 1=1 --",)},
        {"ids": (ID,) * 101},
    ],
)
def test_what_could_not_be_read_back_is_not_written(wrong):
    with pytest.raises(ValueError):
        wire.encode(Pointer("mail", 1, 2.0, (ID,))._replace(**wrong))


@given(st.integers(1, 450), st.integers(150, 70_000))
def test_many_ids_are_spread_over_entries_that_the_server_takes(count, max_job_size):
    pointer = Pointer("mail", 65536, 1_700_000_000.0, tuple(IdMint().make(count)))
    bodies = list(wire.encode_all(pointer, max_job_size))
    assert all(len(body) <= max_job_size - 16 for body in bodies)
    decoded = [wire.decode(body) for body in bodies]
    assert all(len(part.ids) <= 100 for part in decoded)
    assert all(part[:3] == pointer[:3] for part in decoded)
    assert tuple(job_id for part in decoded for job_id in part.ids) == pointer.ids


def test_one_hundred_ids_fill_one_entry_of_a_default_server():
    pointer = Pointer("mail", 65536, 1_700_000_000.0, tuple(IdMint().make(100)))
    assert len(list(wire.encode_all(pointer, 65535))) == 1


def test_a_server_that_takes_no_pointer_at_all_is_refused():
    with pytest.raises(wire.NoRoom, match="max-job-size of 60 bytes"):
        list(wire.encode_all(Pointer("mail", 65536, 1_700_000_000.0, (ID,)), 60))


@pytest.mark.parametrize("tube", ["", "-x", "a b", "a\r\ndelete 1", "é", "a:b", "x" * 201, "x\n"])
def test_a_tube_name_that_the_server_would_refuse_is_never_sent(tube):
    for command in (wire.use, wire.stats_tube, wire.resume, lambda name: wire.watch_only([name])):
        with pytest.raises(ValueError, match="tube: expected"):
            command(tube)


@pytest.mark.parametrize("number", [-1, 2**32])
def test_numbers_that_do_not_fit_32_bits_are_never_sent(number):
    with pytest.raises(ValueError, match="priority: expected"):
        wire.put(number, 0, BODY)
    with pytest.raises(ValueError, match="delay: expected"):
        wire.put(0, number, BODY)
    with pytest.raises(ValueError, match="priority: expected"):
        wire.release(1, number, 0)
    with pytest.raises(ValueError, match="timeout: expected"):
        wire.reserve(number)


def test_the_longest_command_line_fits_the_server():
    longest = [
        wire.put(2**32 - 1, 3600, BODY),
        wire.use("x" * 200),
        wire.stats_tube("x" * 200),
        wire.resume("x" * 200),
        wire.release(2**64 - 1, 2**32 - 1, 3600),
    ]
    assert all(command.data.index(b"\r\n") + 2 <= 224 for command in longest)


def test_a_connection_watches_its_tubes_only():
    assert [c.data for c in wire.watch_only(["a", "b"])] == [b"watch a\r\n", b"watch b\r\n", b"ignore default\r\n"]
    assert [c.data for c in wire.watch_only(["default"])] == [b"watch default\r\n"]


def test_figures_are_lines_and_never_yaml():
    text = b'---\nname: null\ncurrent-jobs-ready: 3\nid: "a: b"\nnonsense\n'
    assert wire.parse_stats(text) == {"name": "null", "current-jobs-ready": "3", "id": '"a: b"'}
