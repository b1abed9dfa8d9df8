"""What must always hold, and the tests that show it.

Three of them check every invariant, whatever happens: the model after each step, in any order of events; the
enumerated steps after each call that failed; the torture in its account of real processes. Beside these each
invariant names the tests that are about it alone.
"""

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.named import names_of_tests

ROOT = Path(__file__).parent

EVERY_INVARIANT = (
    "machines/test_model.py::test_no_order_of_events_breaks_an_invariant",
    "steps/test_steps.py::test_no_step_that_fails_breaks_an_invariant",
    "torture/test_torture.py::test_what_was_acknowledged_survives_kills_freezes_and_restarts",
)


class Invariant(NamedTuple):
    """One of them."""

    says: str
    #: Files below ``tests/``, and a test in each.
    tests: tuple[str, ...]


INVARIANTS = {
    "I1": Invariant(
        "acknowledged, and not deleted or finished: the row is there",
        (
            "contracts/test_intake.py::test_every_field_comes_back",
            "contracts/test_session.py::test_rows_outlive_the_handle",
            "contracts/test_intake.py::test_after_a_failed_add_each_job_is_where_the_error_says",
            "contracts/test_keeping.py::test_nothing_that_is_not_done_is_ever_deleted_by_its_age",
            "contracts/test_limits.py::test_held_rows_never_expire",
            "flows/test_sweep.py::test_a_producer_killed_between_commit_and_put",
            "flows/test_sweep.py::test_adds_go_on_while_beanstalkd_is_down_and_the_sweep_puts_them",
            "faults/test_store_faults.py::test_the_database_locked_by_another_process_while_adding",
            "faults/test_store_faults.py::test_the_disk_of_the_database_full_while_adding",
            "faults/test_beanstalkd_faults.py::test_beanstalkd_killed_while_jobs_are_added",
            "faults/test_beanstalkd_faults.py::test_a_binlog_on_a_full_disk",
        ),
    ),
    "I2": Invariant(
        "after faults stop, every due row with a live handler is claimed or has a live pointer within lease, grace"
        " and one sweep",
        (
            "contracts/test_repair.py::test_the_head_rule",
            "flows/test_sweep.py::test_a_beanstalkd_that_lost_its_memory_gets_every_pointer_again",
            "flows/test_sweep.py::test_a_memory_lost_is_also_seen_behind_what_was_added_since",
            "flows/test_sweep.py::test_a_worker_killed_while_a_handler_runs",
            "flows/test_sweep.py::test_a_long_delay_has_no_pointer_until_near_its_time",
            "flows/test_sweep.py::test_short_runs_sweep_too_when_it_is_due",
            "faults/test_process_faults.py::test_short_cron_runs_alone_repair_and_finish_what_a_crash_has_left",
            "faults/test_clock_faults.py::test_a_wall_clock_that_jumps_before_the_tubes_are_lost",
            "recovery/test_loss.py::test_all_that_a_beanstalkd_lost_is_put_again_in_bounded_batches_while_jobs_run",
        ),
    ),
    "I3": Invariant(
        "the fence only grows; one claim for each id and fence",
        (
            "contracts/test_runs.py::test_two_handles_do_not_claim_the_same_row",
            "contracts/test_runs.py::test_fence_and_tries_grow_with_each_claim_but_a_given_back_try_does_not_count",
            "contracts/test_operator.py::test_revive_makes_dead_rows_ready_and_keeps_the_fence",
            "contracts/test_runs.py::test_of_many_threads_that_claim_at_once_each_row_is_claimed_by_one",
            "contracts/test_runs.py::test_of_many_threads_that_claim_the_same_ids_each_row_is_claimed_by_one",
            "faults/test_process_faults.py::test_of_two_processes_that_claim_the_same_row_one_has_it_each_time",
        ),
    ),
    "I4": Invariant(
        "of those with the job in hand, only the current fence renews, retries, ungets or deletes",
        (
            "contracts/test_settlements.py::test_a_settle_with_a_wrong_fence_changes_nothing",
            "contracts/test_settlements.py::test_the_newer_holder_is_never_touched_by_the_older",
            "contracts/test_settlements.py::test_a_run_is_settled_once",
            "contracts/test_runs.py::test_renew_names_what_is_lost_and_renews_the_rest",
            "flows/test_sweep.py::test_a_late_holder_is_fenced",
            "flows/test_outages.py::test_a_retry_and_an_unget_after_the_lease_is_lost_change_nothing",
            "flows/test_auto_renew.py::test_a_frozen_worker_keeps_its_job_for_as_long_as_it_may_run",
            "flows/test_work.py::test_a_late_coroutine_is_fenced",
            "faults/test_process_faults.py::test_a_worker_frozen_past_its_lease_comes_back_and_changes_nothing",
            "faults/test_process_faults.py::test_a_worker_frozen_in_a_window_of_many_settles_none_of_what_others_took",
        ),
    ),
    "I5": Invariant(
        "no claim succeeds after a delete was acknowledged",
        (
            "contracts/test_operator.py::test_no_claim_succeeds_after_a_delete",
            "contracts/test_settlements.py::test_delete_takes_the_row_away",
            "contracts/test_keeping.py::test_a_done_row_is_never_claimed_nor_put",
            "contracts/test_limits.py::test_a_done_row_is_neither_claimed_nor_held",
            "flows/test_sweep.py::test_a_pointer_whose_row_is_gone_or_leased_is_deleted_and_counted",
            "flows/test_run.py::"
            "test_delete_by_id_of_the_running_job_is_its_own_delete_and_of_an_unstarted_one_keeps_it_from_starting",
        ),
    ),
    "I6": Invariant(
        "everything that ran was added, and its payload is identical byte for byte",
        (
            "contracts/test_intake.py::test_a_payload_comes_back_byte_for_byte",
            "flows/test_run.py::test_payloads_come_back_as_they_went_in",
            "flows/test_sweep.py::test_a_well_formed_pointer_to_rows_of_another_type_runs_nothing",
            "flows/test_sweep.py::test_foreign_entries_are_buried_and_never_end_the_loop",
            "flows/test_sweep.py::test_two_stores_on_one_beanstalkd_never_meet",
            "faults/test_foreign_clients.py::test_two_stores_on_one_beanstalkd",
        ),
    ),
    "I7": Invariant(
        "no fault, no duplicate run; with faults, no more than the jobs that were claimed and unsettled when each"
        " struck",
        (
            "flows/test_threads_and_forks.py::test_several_threads_run_while_others_add_and_each_job_runs_once",
            "flows/test_work.py::test_no_call_of_the_store_that_fails_loses_a_job_or_runs_one_twice",
            "flows/test_sweep.py::test_a_lost_reply_to_a_put_may_make_two_pointers_and_never_two_runs",
            "flows/test_sweep.py::test_a_worker_killed_after_the_handler_and_before_its_settle",
            "flows/test_auto_renew.py::test_a_handler_that_keeps_the_interpreters_lock_keeps_its_job",
            "flows/test_auto_renew.py::test_the_others_of_its_window_are_neither_lost_nor_run_twice",
            "faults/test_network_faults.py::"
            "test_a_reset_between_put_and_reply_may_make_two_pointers_and_never_two_runs",
            "faults/test_beanstalkd_faults.py::test_beanstalkd_killed_while_jobs_run",
            "faults/test_clock_faults.py::test_a_wall_clock_that_jumps_forward_while_a_job_runs",
            "torture/test_account.py::test_a_duplicate_is_allowed_where_a_fault_struck_its_claim_and_nowhere_else",
            "pages/test_promise.py::test_the_handler_that_is_safe_to_run_twice_makes_one_payment_when_its_worker_dies",
        ),
    ),
    "I8": Invariant(
        "a job ends only by its delete, or visibly as dead",
        (
            "contracts/test_settlements.py::test_die_keeps_the_row_and_says_why",
            "contracts/test_repair.py::test_a_death_alone_is_blamed_until_the_row_is_dead",
            "contracts/test_repair.py::test_a_crowd_never_kills_however_often",
            "flows/test_run.py::test_max_tries_ends_a_job_dead_kept_and_visible",
            "flows/test_run.py::test_a_handler_that_returns_without_settling_has_its_job_retried",
            "flows/test_windows.py::test_a_poison_job_among_many_dies_and_no_innocent_does",
            "flows/test_work.py::test_a_poison_job_among_many_in_hand_dies_and_no_innocent_does",
            "faults/test_process_faults.py::test_a_poison_job_among_200_innocent_dies_alone_and_no_innocent_does",
        ),
    ),
    "I9": Invariant(
        "drained means drained: no pointer stays behind",
        (
            "flows/test_run.py::test_no_pointer_stays_behind",
            "flows/test_work.py::test_as_many_coroutines_as_allowed_are_in_hand_at_once_and_never_more",
            "contracts/test_broker.py::test_a_drained_tube_holds_nothing_and_its_neighbour_all",
            "flows/test_sweep.py::test_a_pointer_whose_row_is_gone_or_leased_is_deleted_and_counted",
            "faults/test_foreign_clients.py::test_a_foreign_client_among_our_entries",
            "recovery/test_many_sweepers.py::test_of_many_that_sweep_at_once_each_row_is_put_by_one",
        ),
    ),
    "I10": Invariant(
        "a result is that of the holder whose fence was the latest, and is there exactly when its end is",
        (
            "contracts/test_keeping.py::test_a_result_is_there_exactly_when_its_end_is",
            "contracts/test_keeping.py::test_the_result_of_a_settle_that_is_lost_is_not_kept",
            "contracts/test_keeping.py::test_a_result_goes_with_its_job_and_comes_to_no_other",
            "flows/test_results.py::test_a_holder_that_comes_late_leaves_no_result",
        ),
    ),
}
NAMED = [*EVERY_INVARIANT, *(test for invariant in INVARIANTS.values() for test in invariant.tests)]


def is_there(test: str) -> bool:
    """Whether pytest finds a function of that name in the file."""
    name, _, function = test.partition("::")
    path = ROOT / name
    if not path.is_file() or not path.name.startswith("test_") or not function.startswith("test_"):
        return False
    return function in names_of_tests(path)


def test_there_are_ten() -> None:
    assert list(INVARIANTS) == [f"I{number}" for number in range(1, 11)]


@pytest.mark.parametrize("name", INVARIANTS)
def test_each_invariant_names_tests_of_its_own(name: str) -> None:
    tests = INVARIANTS[name].tests
    assert tests
    assert not set(tests) & set(EVERY_INVARIANT)
    assert len(set(tests)) == len(tests)


@pytest.mark.parametrize("test", dict.fromkeys(NAMED))
def test_a_test_that_is_named_is_there(test: str) -> None:
    assert is_there(test)


@pytest.mark.parametrize(
    "test",
    [
        "test_invariants.py::test_that_nobody_wrote",
        "no_such_file.py::test_there_are_ten",
        "test_invariants.py::is_there",
        "beanstalkd.py::test_there_are_ten",
        "test_invariants.py",
    ],
)
def test_a_test_that_is_not_there_would_be_seen(test: str) -> None:
    assert not is_there(test)


@pytest.mark.parametrize("name", INVARIANTS)
def test_the_model_says_where_it_checks_each(name: str) -> None:
    text = ast.get_docstring(ast.parse((ROOT / "machines" / "machine.py").read_text()))
    assert text is not None
    assert any(line.startswith(f"{name} ") for line in text.splitlines())
