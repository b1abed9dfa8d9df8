"""``kqueue run``: run jobs and end, for cron."""

import signal
from types import FrameType

import click

from kqueue import KQueue
from kqueue.cli.exits import OK, SOME_FAILED, complain
from kqueue.cli.foreground import step_aside
from kqueue.cli.terminal import (
    check_there,
    config_option,
    configured,
    hand_on_config,
    json_option,
    key_options,
    print_report,
)
from kqueue.config.keys import LOG_LEVELS, WORKER
from kqueue.worker import logs
from kqueue.worker.app import load_queue, serve


@click.command()
@click.option("--app", metavar="MODULE:QUEUE", help="Where the KQueue and its handlers are; or as for the worker.")
@key_options([key for key in WORKER if key.name in ("types", "except_types")])
@click.option("--count-limit", type=int, metavar="N", help="Run N jobs at most.")
@click.option("--time-limit-ms", type=float, metavar="N", help="Take no new job after so many milliseconds.")
@click.option("--wait", is_flag=True, help="Wait for jobs, until a limit or a signal ends it.")
@click.option("--create", is_flag=True, help="Make the store if there is none. Without it that is an error.")
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    default="warning",
    show_default=True,
    help="Which lines go to standard error, unless the app configures logging.",
)
@click.option("--quiet", is_flag=True, help="Print nothing unless a job failed: cron sends a mail for each line.")
@config_option
@json_option
def run(
    *,
    app: str | None,
    types: tuple[str, ...],
    except_types: tuple[str, ...],
    count_limit: int | None,
    time_limit_ms: float | None,
    wait: bool,
    create: bool,
    log_level: str,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run jobs, for cron: exit status 0 if none failed, 1 if some did, 2 if they could not be run.

    Without --app it is what KQUEUE_WORKER_APP says, or app in [worker] of kqueue.toml.

    SIGTERM, SIGHUP or SIGINT (Ctrl-C) ends it after the job that runs; a second SIGINT interrupts that one too.
    What a handler has started does not get them. SIGTSTP (Ctrl-Z) stops all of it, until SIGCONT.
    """
    status = step_aside()
    if status is not None:
        return status
    settings = configured({"app": app, "types": types, "except_types": except_types}).worker()
    app = settings["app"]
    if app is None:
        raise ValueError(
            "--app: there is none; give it, or set KQUEUE_WORKER_APP, or app in [worker] of kqueue.toml"
        )
    hand_on_config()
    queue = load_queue(app)
    serve(queue, settings["types"], settings["except_types"])
    logs.configure(log_level)
    if not create:
        check_there(queue, "the app", "kqueue add makes a new one, and so does --create")
    with queue:
        _stop_at_signals(queue)
        try:
            report = queue.run_jobs(count_limit=count_limit, time_limit_ms=time_limit_ms, wait=wait)
        except SystemExit as error:
            # Its code is the handler's, and may be 0: cron would take a failed job for a clean run.
            complain(f"a handler ended the run with SystemExit: {error.code}; its job counts a failed try")
            return SOME_FAILED
    failed = bool(report.retried or report.dead or report.lost_lease or report.unknown)
    if failed or not quiet:
        print_report(report, as_json)
    return SOME_FAILED if failed else OK


def _stop_at_signals(queue: KQueue) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        queue.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, stop)
