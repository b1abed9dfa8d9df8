"""Faults by name: whole queues on real servers, and the account that must come out even once the fault is over.

Each fault, and where it is proved. Paths are from ``tests/``; a path alone stands for the tests of that file.

beanstalkd killed with SIGKILL, with and without -b
    faults/test_beanstalkd_faults.py  test_beanstalkd_killed_while_jobs_are_added
    faults/test_beanstalkd_faults.py  test_beanstalkd_killed_while_jobs_run
    faults/test_beanstalkd_faults.py  test_a_waiting_worker_outlives_each_kill_of_beanstalkd
    flows/test_sweep.py               test_a_beanstalkd_that_lost_its_memory_gets_every_pointer_again
    flows/test_sweep.py               test_a_restart_whose_binlog_survived_puts_nothing
    flows/test_outages.py             test_a_beanstalkd_that_dies_between_reserve_and_settle_of_the_pointers
a binlog on a full disk, and one that fails to be written
    faults/test_beanstalkd_faults.py  test_a_binlog_on_a_full_disk
    faults/test_beanstalkd_faults.py  test_a_purge_while_the_binlogs_disk_is_full
    faults/test_beanstalkd_faults.py  test_a_write_error_after_which_the_binlog_is_silently_off
drain mode
    faults/test_beanstalkd_faults.py  test_drain_mode_until_a_fresh_server_takes_over
JOB_TOO_BIG
    faults/test_beanstalkd_faults.py  test_a_server_that_takes_no_pointer_at_all
    faults/test_network_faults.py     test_a_server_that_says_it_takes_larger_entries_than_it_does
a server that accepts and never answers
    faults/test_network_faults.py     test_a_server_that_accepts_and_never_answers
    flows/test_sweep.py               test_of_many_threads_none_waits_for_a_silent_beanstalkd
a beanstalkd frozen beyond every time-out; DEADLINE_SOON; an entry's own TTR
    faults/test_beanstalkd_faults.py  test_beanstalkd_frozen_beyond_every_time_out_and_continued
    faults/test_beanstalkd_faults.py  test_beanstalkd_frozen_between_reserve_and_settle_of_the_pointers
    faults/test_beanstalkd_faults.py  test_entries_whose_time_is_nearly_up
    faults/test_beanstalkd_faults.py  test_a_claim_that_takes_longer_than_the_entrys_ttr
beanstalkd's wall clock one hour forward and back
    faults/test_beanstalkd_faults.py  test_the_servers_wall_clock_an_hour_forward
    faults/test_beanstalkd_faults.py  test_the_servers_wall_clock_an_hour_back
replies cut in the middle of a line, and sent byte by byte
    faults/test_network_faults.py     test_a_conversation_cut_at_each_of_its_bytes
    faults/test_network_faults.py     test_replies_and_requests_that_come_byte_by_byte
a connection reset between put and reply, or led to another server
    faults/test_network_faults.py     test_a_reset_between_put_and_reply_may_make_two_pointers_and_never_two_runs
    faults/test_network_faults.py     test_a_connection_reset_in_the_place_of_each_reply
    faults/test_network_faults.py     test_no_queue_must_be_made_anew_after_a_fault
    faults/test_network_faults.py     test_a_connection_that_is_led_to_another_server
    flows/test_sweep.py               test_a_lost_reply_to_a_put_may_make_two_pointers_and_never_two_runs
a foreign client that puts garbage, deletes, buries, reserves, hides, copies or forges entries, or pauses our tube
    faults/test_foreign_clients.py    test_a_foreign_client_among_our_entries
    faults/test_foreign_clients.py    test_a_foreign_client_that_kicks_delayed_entries
    faults/test_foreign_clients.py    test_a_foreign_client_that_pauses_our_tube_for_ever
    faults/test_foreign_clients.py    test_a_worker_that_waits_at_a_paused_tube_goes_on_by_itself
    flows/test_sweep.py               test_foreign_entries_are_buried_and_never_end_the_loop
    flows/test_sweep.py               test_a_well_formed_pointer_to_rows_of_another_type_runs_nothing
two stores on one beanstalkd
    faults/test_foreign_clients.py    test_two_stores_on_one_beanstalkd
the database locked by another process for longer than the busy time-out
    faults/test_store_faults.py       test_the_database_locked_by_another_process_while_adding
    faults/test_store_faults.py       test_the_database_locked_by_another_process_before_each_write
    faults/test_store_faults.py       test_a_waiting_loop_goes_on_after_the_database_was_locked
the database's disk full
    faults/test_store_faults.py       test_the_disk_of_the_database_full_while_adding
    faults/test_store_faults.py       test_the_disk_of_the_database_full_before_each_write
    faults/test_store_faults.py       test_a_waiting_loop_settles_later_what_a_full_disk_did_not_take
MongoDB stopped and started
    faults/test_store_faults.py       test_a_mongodb_stopped_and_started_while_adding
    faults/test_store_faults.py       test_a_mongodb_stopped_and_started_while_running
another member of MongoDB takes over, or it dies, while several documents are changed at once
    stores/test_mongo_transactions.py test_a_transaction_that_a_failover_undid_is_done_again_once
    stores/test_mongo_turns.py        test_a_turn_that_no_one_ends_is_taken_over
a process killed while it changes several documents of a MongoDB
    stores/test_mongo_transactions.py test_what_a_killed_process_has_begun_is_undone_by_the_server
    stores/test_mongo_turns.py        test_a_client_that_is_killed_keeps_nobody_waiting
a worker frozen past its lease that comes back and settles
    faults/test_process_faults.py     test_a_worker_frozen_past_its_lease_comes_back_and_changes_nothing
    faults/test_process_faults.py     test_a_worker_frozen_in_a_window_of_many_settles_none_of_what_others_took
two workers that claim the same row
    faults/test_process_faults.py     test_of_two_processes_that_claim_the_same_row_one_has_it_each_time
    contracts/test_runs.py            test_of_many_threads_that_claim_the_same_ids_each_row_is_claimed_by_one
a poison job among 200 innocent ones
    faults/test_process_faults.py     test_a_poison_job_among_200_innocent_dies_alone_and_no_innocent_does
    flows/test_windows.py             test_a_poison_job_alone_is_dead_after_max_crashes_deaths
fork with an open queue
    flows/test_threads_and_forks.py   test_children_use_their_parents_queue_and_the_parent_goes_on
    flows/test_threads_and_forks.py   test_a_child_connects_by_itself_and_leaves_its_parents_sockets_alone
    flows/test_threads_and_forks.py   test_a_child_never_sees_its_parents_sqlite_connection
    flows/test_threads_and_forks.py   test_a_fork_while_other_threads_add_leaves_no_lock_behind
cron runs of 200 ms only, with no long-lived worker, after a crash
    faults/test_process_faults.py     test_short_cron_runs_alone_repair_and_finish_what_a_crash_has_left
    faults/test_process_faults.py     test_short_cron_runs_come_to_every_type
a wall clock one hour forward and back
    faults/test_clock_faults.py       test_a_wall_clock_that_jumps_while_jobs_wait
    faults/test_clock_faults.py       test_a_wall_clock_that_jumps_while_jobs_are_delayed
    faults/test_clock_faults.py       test_a_wall_clock_that_jumps_forward_while_a_job_runs
    faults/test_clock_faults.py       test_a_wall_clock_that_jumps_back_while_a_job_runs
    faults/test_clock_faults.py       test_a_wall_clock_that_jumps_after_a_worker_has_died
    faults/test_clock_faults.py       test_a_wall_clock_that_jumps_between_two_sweeps
    faults/test_clock_faults.py       test_a_wall_clock_that_jumps_before_the_tubes_are_lost
    flows/test_sweep.py               test_a_clock_that_goes_back_during_a_sweep_puts_nothing_without_end
a host's clock that is set while workers run
    faults/test_set_clock.py          test_a_process_whose_clock_is_set_ahead_and_back
a producer whose clock is minutes off
    faults/test_clock_faults.py       test_a_producer_whose_clock_is_off_has_its_jobs_run_at_once
    faults/test_clock_faults.py       test_a_producer_whose_clock_is_off_has_delays_that_are_off_by_as_much
    faults/test_clock_faults.py       test_a_producer_whose_clock_is_off_makes_no_storm_of_puts
    faults/test_clock_faults.py       test_a_producer_whose_clock_is_off_has_lost_pointers_put_again
"""
