"""How much a window takes."""

import math

from hypothesis import given
from hypothesis import strategies as st

from kqueue.contracts.budget import MAX_JOBS, WORK_S, Budget, suspect_jobs
from kqueue.loops.sizer import GROWTH, Sizer
from kqueue.model.job import Row


def candidate(n: int, *, payload: bytes = b"", suspicion: int = 0, crashes: int = 0, type: str = "fast") -> Row:
    return Row(f"{n:028d}", type, payload, "bytes", 0, "ready", 0, 0, 1, suspicion=suspicion, crashes=crashes)


FAST = {"fast": 0.000_01}


def test_a_window_takes_as_many_jobs_as_allowed_and_says_that_it_left_some() -> None:
    rows = [candidate(n) for n in range(5)]
    assert Budget(3, job_s=FAST).fit(rows) == (rows[:3], True)
    assert Budget(5, job_s=FAST).fit(rows) == (rows, False)


def test_the_first_job_always_fits() -> None:
    giant = candidate(0, payload=b"x" * 100)
    assert Budget(1, payload_bytes=10, work_s=0.0).fit([giant]) == ([giant], False)


def test_payload_bytes_bound_a_window() -> None:
    rows = [candidate(n, payload=b"x" * 40) for n in range(4)]
    taken, cut = Budget(10, payload_bytes=100, job_s=FAST).fit(rows)
    assert (len(taken), cut) == (2, True)


def test_expected_work_bounds_a_window_and_types_add_up() -> None:
    rows = [candidate(n, type="slow" if n % 2 else "fast") for n in range(10)]
    taken, _ = Budget(10, work_s=0.05, job_s={"fast": 0.001, "slow": 0.02}).fit(rows)
    assert len(taken) == 5  # fast slow fast slow fast: 43 ms, and one more slow would be 63


def test_a_type_never_measured_fills_a_window() -> None:
    rows = [candidate(n, type="new") for n in range(10)]
    assert len(Budget(10).fit(rows)[0]) == 1


def test_a_suspect_shrinks_its_window_by_a_sixteenth_for_each_death_down_to_one() -> None:
    assert [suspect_jobs(deaths) for deaths in range(5)] == [512, 32, 2, 1, 1]
    assert suspect_jobs(10_000) == 1
    for deaths in (1, 2, 3):
        rows = [candidate(n, suspicion=deaths) for n in range(100)]
        assert len(Budget(MAX_JOBS, job_s=FAST).fit(rows)[0]) == suspect_jobs(deaths)


def test_one_that_has_killed_its_worker_alone_is_alone_again() -> None:
    assert suspect_jobs(0, crashes=1) == 1
    rows = [candidate(0), candidate(1, crashes=1), candidate(2)]
    assert Budget(MAX_JOBS, job_s=FAST).fit(rows) == (rows[:1], True)
    assert Budget(MAX_JOBS, job_s=FAST).fit(rows[1:]) == (rows[1:2], True)


def test_a_suspect_among_many_does_not_join_a_large_window() -> None:
    rows = [candidate(n) for n in range(40)] + [candidate(40, suspicion=1), candidate(41)]
    taken, cut = Budget(MAX_JOBS, job_s=FAST).fit(rows)
    assert (taken, cut) == (rows[:40], True)


def sizer_of(*spent: tuple[str, int, float]) -> Sizer:
    """One that has measured these, one after another."""
    sizer = Sizer({})
    for one in spent:
        sizer.observe([one])
    return sizer


def test_as_much_waits_for_threads_as_a_claim_takes_and_no_long_job() -> None:
    sizer = sizer_of()
    assert sizer.ahead(8) == 0  # not known yet
    sizer.observe([("t", 1, 0.010)])
    assert sizer.ahead(8) == 16
    sizer.claimed(0.020)  # twice as long for each thread
    assert sizer.ahead(8) == 32
    sizer.claimed(5.0)  # but not for so long that it would be given back
    assert sizer.ahead(8) == 40
    sizer.observe([("t", 1, 0.090)] * 50)
    assert sizer.ahead(8) == 8
    sizer.observe([("t", 1, 0.200)] * 50)
    assert sizer.ahead(8) == 0


def test_threads_that_share_a_claim_get_a_job_each_however_long_it_takes() -> None:
    sizer = sizer_of(("fast", 1, 60.0))
    rows = [candidate(n, type="fast" if n % 2 else "new") for n in range(20)]
    assert len(sizer.shared(20, 8, ["fast", "new"], math.inf).fit(rows)[0]) == 8


def test_a_type_never_measured_takes_what_jobs_take_here() -> None:
    """Of many types with a job each as many fit as of one type, and each was to fill a window of its own."""
    rows = [candidate(n, type=f"t{n}") for n in range(500)]
    types = [row.type for row in rows]
    assert len(sizer_of().shared(500, 1, types, math.inf).fit(rows)[0]) == 1
    assert len(sizer_of(("t0", 1, 0.000_01)).shared(500, 1, types, math.inf).fit(rows)[0]) == 500
    assert len(sizer_of(("t0", 1, 0.005)).shared(500, 1, types, math.inf).fit(rows)[0]) == 10


def test_who_has_counted_all_types_before_knows_how_long_they_take() -> None:
    known = Sizer({"fast": (500, 0.005), "slow": (100, 1.0)})
    assert known.ahead(1, in_turn=True) == 4
    assert Sizer({"fast": (500, 0.005), "new": (0, 0.0)}).is_new()
    assert Sizer({}).is_new()


def test_few_runs_counted_before_let_little_more_be_claimed() -> None:
    """One that was quick by chance, as a mail to nobody, says little of the next ones."""
    assert Sizer({"mail": (1, 0.000_01)}).ahead(1, in_turn=True) == GROWTH - 1
    assert Sizer({"mail": (1000, 0.010)}).ahead(1, in_turn=True) == MAX_JOBS - 1


def test_candidates_are_read_no_further_than_the_first_that_does_not_fit() -> None:
    read: list[int] = []

    def rows() -> object:
        for n in range(1000):
            read.append(n)
            yield candidate(n)

    Budget(7, job_s=FAST).fit(rows())  # type: ignore[arg-type]
    assert len(read) == 8


def test_fast_jobs_get_windows_of_hundreds_within_a_few_windows() -> None:
    sizer = sizer_of()
    assert sizer.ahead(1, in_turn=True) == 0
    for expected in (GROWTH, GROWTH**2, MAX_JOBS, MAX_JOBS):
        sizer.observe([("fast", 1, 0.0)])
        assert sizer.ahead(1, in_turn=True) == expected - 1


def test_slow_jobs_that_run_in_turn_fill_a_window_and_no_more() -> None:
    ten = sizer_of(*[("slow", 1, WORK_S / 5)] * 10)
    assert 4 <= ten.ahead(1, in_turn=True) + 1 <= 5
    long = sizer_of(*[("slow", 1, 0.2)] * 10)
    assert long.ahead(1, in_turn=True) == 0
    rows = [candidate(n, type="slow") for n in range(10)]
    assert len(long.shared(10, 1, ["slow"], math.inf).fit(rows)[0]) == 1


def test_a_time_limit_leaves_no_more_work_than_its_seconds() -> None:
    sizer = sizer_of(*[("fast", 100, 0.1)] * 5)  # 1 ms each
    assert sizer.shared(50, 1, ["fast"], 0.01).work_s == 0.01
    assert sizer.shared(50, 1, ["fast"], 10).work_s == WORK_S
    assert len(sizer.shared(100, 1, ["fast"], 0.01).fit([candidate(n) for n in range(100)])[0]) <= 10


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 4), st.sampled_from(["fast", "slow", "new"])), min_size=1
    ),
    st.integers(1, 40),
)
def test_whatever_comes_a_window_holds_a_prefix_within_every_bound(
    shapes: list[tuple[int, int, str]], jobs: int
) -> None:
    rows = [
        candidate(n, payload=b"x" * size, suspicion=deaths, type=type)
        for n, (size, deaths, type) in enumerate(shapes)
    ]
    limits = Budget(jobs, payload_bytes=100, work_s=0.05, job_s={"fast": 0.001, "slow": 0.04})
    taken, cut = limits.fit(iter(rows))
    assert taken == rows[: len(taken)]
    assert cut == (len(taken) < len(rows))
    assert taken
    if len(taken) > 1:
        assert len(taken) <= min([jobs, *(suspect_jobs(row.suspicion) for row in taken if row.suspicion)])
        assert sum(len(row.payload) for row in taken) <= 100
        assert sum(limits.job_s.get(row.type, 0.05) for row in taken) <= 0.05 + 1e-9


def test_each_part_has_its_own_room_and_the_first_that_does_not_fit_ends_the_window() -> None:
    parts = (Budget(2, job_s={"a": 0.0}), Budget(3, job_s={"b": 0.0, "c": 0.0}))
    budget = Budget(5, parts=parts, part_of={"a": 0, "b": 1, "c": 1})
    rows = [candidate(n, type=type) for n, type in enumerate("abcabacb")]
    assert budget.fit(rows) == (rows[:5], True)
    assert budget.fit(rows[:5]) == (rows[:5], False)
    assert [budget.room(type) for type in "abcd"] == [2, 3, 3, 0]
    assert budget.fit([candidate(0, type="d"), candidate(1, type="d")])[0] == [candidate(0, type="d")]


def test_the_first_of_each_part_fits_however_long_it_takes() -> None:
    budget = Budget(9, parts=(Budget(4), Budget(4)), part_of={"a": 0, "b": 1})
    rows = [candidate(n, type=type) for n, type in enumerate("aba")]
    assert budget.fit(rows) == (rows[:2], True)


def test_bounds_of_a_window_hold_for_all_parts_together() -> None:
    fast = {"a": 0.0, "b": 0.0}
    budget = Budget(3, payload_bytes=100, parts=(Budget(9, job_s=fast),) * 2, part_of={"a": 0, "b": 1})
    rows = [candidate(n, type="ab"[n % 2]) for n in range(6)]
    assert budget.fit(rows) == (rows[:3], True)
    big = [candidate(n, type="ab"[n % 2], payload=b"x" * 60) for n in range(3)]
    assert budget.fit(big) == (big[:1], True)
    suspects = [candidate(n, type="ab"[n % 2], suspicion=3) for n in range(3)]
    assert budget.fit(suspects) == (suspects[:1], True)
