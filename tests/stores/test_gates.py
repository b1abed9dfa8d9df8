"""Who passes the gates of limited types: decided without a store."""

import math
from random import Random

import pytest

from kqueue.contracts.admission import Claimer, Limit, hands_of
from kqueue.stores.gates import (
    Candidate,
    Gates,
    _Line,
    after_gates,
    bounded,
    counted_starts,
    free,
    free_at,
    gate_of,
    key_of,
    leases_of,
    type_of,
)


class Counts:
    """Numbers as the test gives them; what was asked is noted."""

    def __init__(self, running=(), starts=0, first_start=None, waiting=(), admitted=0, gates=None):
        #: (limit key, end of the lease) of each that runs.
        self.runs, self.started, self.first = list(running), starts, first_start
        self.line, self.let_in = list(waiting), admitted
        #: What rows of a key count with, if not by themselves.
        self.gates = gates or {}
        self.asked = []

    def leases(self, type, limit_key):
        self.asked.append(("running", type, limit_key))
        return leases_of((self.gates.get(key, type), end) for key, end in self.runs if limit_key in {None, key})

    def starts(self, limit):
        self.asked.append(("starts", limit.type))
        return self.started

    def first_start(self, limit):
        return self.first

    def admitted(self, gate):
        return self.let_in

    def waiting(self, gate):
        for place in self.line if gate == "t" else ():
            self.asked.append(("read", place))
            yield place


def candidate(order, priority=9, type="t", gate=None, key=None):
    return Candidate(priority, order, type, gate, key)


def test_a_gate_is_named_by_its_type_and_key():
    assert [gate_of("t", key) for key in (None, "", "a b")] == ["t", "t ", "t a b"]
    assert [key_of(gate) for gate in ("t", "t ", "t a b")] == [None, "", "a b"]
    assert {type_of(gate) for gate in ("t", "t ", "t a b")} == {"t"}


@pytest.mark.parametrize("type", ["t", "t-t", "t.t", "t/t", "t+", "t;", "t$", "t(", "t_", "tt", "T", "t0"])
def test_the_gates_of_a_type_stand_together_and_begin_with_its_own(type):
    gates = sorted(gate_of(one, key) for one in {"t", type} for key in (None, "", "a", "~", "☃", "\x01"))
    own = [gate for gate in gates if type <= gate < after_gates(type)]
    assert own == [gate for gate in gates if type_of(gate) == type]
    assert own[0] == type


def test_a_type_without_a_limit_passes_and_nothing_is_asked():
    counts = Counts()
    gates = Gates([Limit("t", running=0)], counts)
    assert gates.stop(candidate(1, type="x", key="k")) is None
    assert (gates.limited("t"), gates.limited("x"), counts.asked) == (True, False, [])


def test_what_no_bound_needs_is_not_counted():
    counts = Counts()
    assert Gates([Limit("t", running_per_key=1)], counts).stop(candidate(1)) is None
    assert counts.asked == []
    assert not bounded(Limit("t", running_per_key=1), None)
    assert not bounded(Limit("t", running=1, starts=1), "k")


def test_places_are_counted_once_and_then_as_they_are_given():
    counts = Counts(running=[("k", 1.0), (None, 1.0)])
    gates = Gates([Limit("t", running=4, running_per_key=2)], counts)
    stopped = [gates.stop(candidate(at, key=key)) for at, key in enumerate(["k", "k", None, None])]
    assert stopped == [None, "t k", None, "t"]
    assert [one for one in counts.asked if one[0] == "running"] == [("running", "t", None), ("running", "t", "k")]


def test_the_line_is_read_no_further_than_to_the_first_that_stands_there():
    counts = Counts(waiting=[(9, 5), (9, 6), (9, 7)])
    gates = Gates([Limit("t", running=9)], counts)
    assert gates.stop(candidate(8)) == "t"
    assert gates.stop(candidate(4)) is None
    assert [one for one in counts.asked if one[0] == "read"] == [("read", (9, 5))]
    assert gates.stop(candidate(5, gate="t")) is None
    assert gates.stop(candidate(8)) == "t"
    assert [one for one in counts.asked if one[0] == "read"] == [("read", (9, 5)), ("read", (9, 6))]


def test_who_has_gone_from_a_line_is_in_nobodys_way():
    counts = Counts(waiting=[(9, 1), (9, 2)])
    gates = Gates([Limit("t", running=9)], counts)
    assert [gates.stop(candidate(at, gate="t")) for at in (2, 1)] == [None, None]
    assert gates.stop(candidate(3)) is None


def test_who_goes_on_to_another_gate_is_in_nobodys_way_either():
    gates = Gates([Limit("t", running=9, running_per_key=0)], Counts(waiting=[(9, 1)]))
    assert gates.stop(candidate(1, gate="t", key="k")) == "t k"
    assert gates.stop(candidate(2)) is None


def test_who_was_stopped_stands_in_the_line():
    gates = Gates([Limit("t", running=9)], Counts(waiting=[(1, 1)]))
    assert gates.stop(candidate(5, priority=4)) == "t"
    assert gates.stop(candidate(1, priority=1, gate="t")) is None
    assert gates.stop(candidate(6, priority=4)) == "t"
    assert gates.stop(candidate(7, priority=3)) is None


def test_free_places_are_those_of_the_narrower_bound():
    counts = Counts(running=[("k", 1.0), ("l", 1.0)], starts=3)
    assert free(Limit("t", running=5), None, counts) == 3
    assert free(Limit("t", running=5, starts=4), None, counts) == 1
    assert free(Limit("t", running=1), None, counts) == -1
    assert free(Limit("t", running=5, running_per_key=2), "k", counts) == 1
    assert free(Limit("t"), None, counts) == free(Limit("t", running=1), "k", counts) == math.inf


def test_a_place_comes_free_in_time_where_time_brings_one():
    limit = Limit("t", running=1, starts=1, period=10.0)
    assert free_at(limit, None, Counts(running=[(None, 7.0)], starts=0)) == 7.0
    assert free_at(limit, None, Counts(running=[(None, 7.0)], starts=1, first_start=1.0)) == 11.0
    assert free_at(limit, None, Counts(running=[], starts=1, first_start=1.0)) == 11.0
    assert free_at(limit, None, Counts(running=[], admitted=1)) is None


def test_starts_far_ahead_of_the_clock_do_not_count():
    since, until = counted_starts(Limit("t", starts=1, period=10.0), 1000.0)
    assert since == 990.0
    assert 1010.0 <= until <= 1100.0


# -- those of a holder count together --------------------------------------------------------------------

ME, OTHER = Claimer("me", 4), Claimer("other", 2)


def test_rows_of_a_holder_take_as_many_places_as_it_has_hands():
    gates = [ME.gate_of("t")] * 9 + [OTHER.gate_of("t")] + ["t"] * 3
    leases = leases_of((gate, 100.0 - number) for number, gate in enumerate(gates))
    assert (leases.places(), leases.places(but=ME.gate_of("t")), leases.first_end) == (8, 4, 88.0)
    assert leases.held == {ME.gate_of("t"): 9, OTHER.gate_of("t"): 1}


def test_a_gate_of_a_type_is_of_no_holder():
    assert (hands_of("t"), hands_of("t key"), hands_of("t 4 x"), hands_of(ME.gate_of("t"))) == (None, None, None, 4)


@pytest.mark.parametrize(
    ("most", "others", "mine", "follow", "rows"),
    [
        (4, 0, 0, 0, math.inf),  # room for all its hands
        (9, 5, 700, 0, math.inf),
        (9, 6, 0, 0, 3),  # not for all: each row is a place
        (9, 6, 2, 50, 1),
        (3, 0, 0, 0, 3),  # more hands than places
        (3, 0, 2, 10, 31),
        (3, 1, 1, 10, 1),  # others may have the rest
        (1, 1, 0, 10, 0),
        (1, 2, 5, 10, -6),
    ],
)
def test_what_a_holder_may_claim(most, others, mine, follow, rows):
    running = [("o", 9.0)] * others + [("m", 9.0)] * mine
    counts = Counts(running=running, gates={"m": ME.gate_of("t")})
    assert free(Limit("t", running=most), None, counts, ME._replace(follow=follow)) == rows


def test_a_holder_starts_no_more_than_the_limit_says():
    limit = Limit("t", running=9, starts=5, period=10.0)
    assert free(limit, None, Counts(starts=3), ME) == 2


@pytest.mark.parametrize("seed", range(20))
def test_holders_never_run_more_than_the_limit_says(seed):
    """Any number of them, who claim, run as many as they may by themselves, and settle, in any order."""
    random = Random(seed)
    most = random.randint(1, 6)
    limit = Limit("t", running=most)
    holders = [Claimer(str(number), random.randint(1, 8), random.choice([0, 3])) for number in range(4)] + [None]
    rows = [0] * len(holders)
    for _ in range(200):
        number = random.randrange(len(holders))
        if random.random() < 0.5:
            gates = [
                "t" if holder is None else holder.gate_of("t")
                for holder, count in zip(holders, rows, strict=True)
                for _ in range(count)
            ]
            counts = Counts(running=[(gate, 9.0) for gate in gates], gates={gate: gate for gate in gates})
            rows[number] += int(max(0, min(free(limit, None, counts, holders[number]), random.randint(1, 9))))
        else:
            rows[number] -= random.randint(0, rows[number])
        # The most that may run: each holder keeps the limit itself, and has only so many hands.
        run = [
            count if holder is None else min(count, holder.hands, most)
            for holder, count in zip(holders, rows, strict=True)
        ]
        assert sum(run) <= most


def test_of_those_that_came_back_together_one_that_leaves_does_not_take_the_others_along() -> None:
    """They have the same place on a MongoDB."""
    line = _Line(iter([(0, 10), (0, 10)]))
    one, newcomer = Candidate(0, 10, "t", "t", None), Candidate(0, 20, "t", None, None)
    line.leave(one)
    assert line.has_before(newcomer)
    line.leave(one)
    assert not line.has_before(newcomer)
