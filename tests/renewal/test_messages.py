"""What client and renewer say to each other."""

import json

import pytest

from kqueue.contracts.renewer import Renewal, RenewalEnd
from kqueue.renewal.messages import (
    MAX_LINE,
    SLOTS,
    VERSION,
    Forget,
    HandlerRun,
    Hello,
    LetGo,
    Lines,
    RenewalWindow,
    ServerReady,
    Told,
    Trouble,
    answer,
    encode,
    holds,
    request,
    runs,
)
from tests.tubes import MINT

IDS = MINT.make(4)
WINDOW = RenewalWindow(
    3,
    17,
    4,
    12.5,
    [HandlerRun(0, 1, 60.0, None, None, False, IDS[:2]), HandlerRun(3, 2, 1.5, 600.0, 30.0, True, IDS[3:])],
)


@pytest.mark.parametrize("said", [Hello(VERSION, 77, "sqlite:////a b\n.db"), WINDOW, LetGo(3), Forget()])
def test_what_a_client_says_is_understood(said):
    line = encode(said)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert request(line.removesuffix(b"\n")) == said


@pytest.mark.parametrize(
    "said", [ServerReady(), Told(17, IDS[0], RenewalEnd.OVER, True), Trouble("the store\nis locked")]
)
def test_what_a_renewer_says_is_understood(said):
    line = encode(said)
    assert line.count(b"\n") == 1
    assert answer(line.removesuffix(b"\n")) == said


def hold(**changes: object) -> bytes:
    """A hold of one job, with some of it changed."""
    said = {"slot": 0, "first": 1, "size": 1, "at": 0.5, "position": 0, "fence": 1, "ttr": 60, "bound": None}
    said |= {"retry": None, "kill": False, "ids": IDS[:1], **changes}
    run = [said[name] for name in ("position", "fence", "ttr", "bound", "retry", "kill", "ids")]
    return json.dumps(["hold", *(said[name] for name in ("slot", "first", "size", "at")), [run]]).encode()


def test_a_lease_may_have_begun_before_the_clock():
    assert request(hold(at=-0.5)).leased_at == -0.5


def test_a_hold_of_one_job_is_understood():
    assert request(hold()) == RenewalWindow(0, 1, 1, 0.5, [HandlerRun(0, 1, 60.0, None, None, False, IDS[:1])])


NO_REQUESTS = {
    "nothing": b"",
    "no JSON": b"hello",
    "no UTF-8": b"\xff\xfe",
    "no list": b"{}",
    "an unknown word": b'["renew"]',
    "an answer": encode(ServerReady()),
    "nested too deeply": b"[" * 100_000,
    "another version": encode(Hello(VERSION + 1, 1, "memory:")),
    "a process of 0": encode(Hello(VERSION, 0, "memory:")),
    "a process beyond all": encode(Hello(VERSION, 2**31, "memory:")),
    "a field too many": b'["forget", 1]',
    "a slot below 0": hold(slot=-1),
    "a slot too high": hold(slot=SLOTS),
    "a first too high": hold(first=2**63),
    "a time that is none": hold(at=float("nan")),
    "a time beyond all": hold(at=float("inf")),
    "a time as text": hold(at="1"),
    "a TTR below 0": hold(ttr=-1),
    "a TTR that is true": hold(ttr=True),
    "a position outside": hold(position=1),
    "a position below 0": hold(position=-1),
    "a fence too high": hold(fence=2**63),
    "a bound as text": hold(bound="10"),
    "a delay below 0": hold(retry=-0.5),
    "a kill that is a number": hold(kill=1),
    "an id that is none": hold(ids=["mail"]),
    "an id of another form": hold(ids=["A" * 28]),
    "an id that is a number": hold(ids=[1]),
    "ids cut at another place": hold(size=2, ids=["0" * 27, "0" * 29]),
}


@pytest.mark.parametrize("line", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_what_no_client_says_is_refused(line):
    with pytest.raises(ValueError, match="."):
        request(line)


@pytest.mark.parametrize("line", [b"", b'["told", 1, "x", "found"]', b'["ready", 1]', encode(Forget())])
def test_what_no_renewer_says_is_refused(line):
    with pytest.raises(ValueError, match="."):
        answer(line)


def test_jobs_that_are_alike_are_said_together_and_come_out_one_by_one():
    one, two, three = (Renewal(id, 1, 60.0) for id in IDS[:3])
    other = Renewal(IDS[3], 2, 60.0, 5.0, 1.0, kill=True)
    window = [one, two, None, three, other]
    found = runs(window)
    assert [(run.position, list(run.ids)) for run in found] == [(0, IDS[:2]), (3, IDS[2:3]), (4, IDS[3:])]
    assert [pair for run in found for pair in holds(run)] == [(0, one), (1, two), (3, three), (4, other)]


def test_a_stream_is_cut_into_lines_wherever_it_was_cut_before():
    lines = Lines()
    got = [line for byte in b"ab\n\ncd\ne" for line in lines.feed(bytes([byte]))]
    assert got == [b"ab", b"", b"cd"]
    assert lines.feed(b"f\ngh\n") == [b"ef", b"gh"]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_that_is_too_long_is_refused(end):
    lines = Lines()
    assert lines.feed(b"x" * MAX_LINE) == []
    with pytest.raises(ValueError, match="a line of more than"):
        lines.feed(b"x" + end)
