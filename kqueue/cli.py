"""The command line.

Exit status: 0 done, 1 some jobs failed or were not there, 2 could not be done (one line on stderr says why).
"""

import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click
from rich.console import Console

from kqueue import BrokerError, Finding, KQueue, KQueueError, RunReport, SweepReport, demo
from kqueue.add_command import add
from kqueue.app import load_queue
from kqueue.commands.worker import worker
from kqueue.job_commands import delete, list_command, retry, show
from kqueue.terminal import (
    COULD_NOT,
    INTERRUPTED,
    OK,
    SOME_FAILED,
    complain,
    find_queue,
    json_option,
    print_columns,
    print_json,
    queue_options,
)


def main(args: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status. Whatever it raises becomes one line on stderr."""
    if sys.stdout is None:
        # Who started us has closed it. Then what is printed goes nowhere, and the work is done all the same.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (it stays open to the end)
    try:
        status = cli.main(args, prog_name="kqueue", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "kqueue"
        _fail(f"{error.format_message()} See: {command} --help")
    except click.ClickException as error:
        _fail(error.format_message())
    except click.Abort:
        _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _drop_output()
        sys.exit(SOME_FAILED)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (KQueueError, ValueError, TypeError) as error:
        _fail(str(error))
    sys.exit(status)


def _fail(message: str, status: int = COULD_NOT) -> NoReturn:
    complain(message)
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
    sys.exit(status)


def _drop_output() -> None:
    """It cannot be written: its reader has gone, or its disk is full. Python's own flush at exit would fail too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(
    commands=[add, list_command, show, retry, delete, worker],
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="kqueue", prog_name="kqueue", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """KQueue: a job queue on beanstalkd that loses no job."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command("demo")
@click.option("--store", metavar="URL", help="Keep the jobs here. Without it: a SQLite file that is removed.")
@click.option("--broker", metavar="URL", help="Such as beanstalk://127.0.0.1:11300. Without it: none.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Parse the first N files only.")
def demo_command(store: str | None, broker: str | None, limit: int | None) -> None:
    """Parse Python's standard library, one job for each file."""
    demo.run(demo.standard_library(limit), store, broker, Console())


# -- run -----------------------------------------------------------------------------------------------------


@cli.command()
@click.option("--app", required=True, metavar="MODULE:QUEUE", help="Where the KQueue and its handlers are.")
@click.option("--count-limit", type=int, metavar="N", help="Run N jobs at most.")
@click.option("--time-limit-ms", type=float, metavar="N", help="Take no new job after so many milliseconds.")
@click.option("--wait", is_flag=True, help="Wait for jobs, until a limit or a signal ends it.")
@json_option
def run(app: str, count_limit: int | None, time_limit_ms: float | None, wait: bool, as_json: bool) -> int:
    """Run jobs, for cron: exit status 0 if none failed, 1 if some did, 2 if they could not be run.

    SIGTERM or SIGINT (Ctrl-C) ends it after the job that runs; a second SIGINT interrupts that one too.
    """
    queue = load_queue(app)
    with queue:
        _stop_at_signals(queue)
        try:
            report = queue.run_jobs(count_limit=count_limit, time_limit_ms=time_limit_ms, wait=wait)
        except SystemExit as error:
            # Its code is the handler's, and may be 0: cron would take a failed job for a clean run.
            _fail(
                f"a handler ended the run with SystemExit: {error.code}; its job counts a failed try", SOME_FAILED
            )
    _print_report(report, as_json)
    return SOME_FAILED if report.retried or report.dead or report.lost_lease else OK


def _stop_at_signals(queue: KQueue) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        queue.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


# -- status and sweep ----------------------------------------------------------------------------------------


@cli.command()
@queue_options
@json_option
def status(store: str | None, broker: str | None, as_json: bool) -> None:
    """Show how many jobs stand where, and what the tubes hold."""
    with find_queue(store, broker) as queue:
        jobs = {type: queue.counts(type) for type in queue.store.types()}
        tubes, broker_error = _depths(queue, list(jobs))
        store_address = queue.store.address
        broker_address = queue.broker.address if queue.broker.carries_pointers else None
    if as_json:
        types = {type: {"jobs": counts, "tube": tubes.get(type)} for type, counts in jobs.items()}
        servers = {"store": store_address, "broker": broker_address, "broker_error": broker_error}
        print_json({**servers, "types": types})
        return
    click.echo(f"store   {store_address}\nbroker  {broker_address or 'none'}")
    if broker_error:
        click.echo(f"        unreachable: {broker_error}")
    if not jobs:
        click.echo("no jobs")
    _print_numbers("jobs", jobs)
    _print_numbers("tube", tubes)


def _depths(queue: KQueue, types: list[str]) -> tuple[dict[str, dict[str, int]], str | None]:
    """What the tubes hold, or why that cannot be said. The jobs are in the store all the same."""
    try:
        return queue.broker.depths(types), None
    except KQueueError as error:
        return {}, str(error)


def _print_numbers(title: str, rows: dict[str, dict[str, int]]) -> None:
    if rows:
        click.echo()
        heads = next(iter(rows.values()))
        print_columns([title, *heads], [[type, *numbers.values()] for type, numbers in rows.items()])


@cli.command()
@queue_options
@click.option("--dry-run", is_flag=True, help="Do nothing; say what would be done and why, a line a finding.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="With --dry-run: findings of a kind.",
)
@json_option
def sweep(store: str | None, broker: str | None, dry_run: bool, limit: int, as_json: bool) -> int:
    """Repair now: make due jobs ready, take back expired leases, put lost pointers again."""
    with find_queue(store, broker) as queue:
        if dry_run:
            return _say_findings(queue, limit, as_json)
        _print_report(queue.sweep(), as_json)
    return OK


def _say_findings(queue: KQueue, limit: int, as_json: bool) -> int:
    """What was found before the broker turned out to be down is said too."""
    findings: list[Finding] = []
    broker_error: str | None = None
    try:
        for finding in queue.findings(limit):
            findings.append(finding)
    except BrokerError as error:
        broker_error = str(error)
    if as_json:
        print_json({"findings": [dataclasses.asdict(one) for one in findings], "broker_error": broker_error})
    elif findings:
        print_columns(
            ["id", "type", "would", "why"],
            [[one.job_id or "-", one.type or "-", one.repair.value, one.why] for one in findings],
        )
    elif broker_error is None:
        click.echo("nothing to do")
    if broker_error is None:
        return OK
    complain(broker_error)
    return COULD_NOT


def _print_report(report: RunReport | SweepReport, as_json: bool) -> None:
    values = dataclasses.asdict(report)
    if as_json:
        print_json(values)
        return
    seconds = values.pop("seconds")
    numbers = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in values.items())
    click.echo(f"{numbers} in {seconds:.2f} s")
