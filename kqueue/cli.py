"""The command line. Exit status: 0 done, 1 jobs failed, 2 could not be done (and one line on stderr says why)."""

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from types import FrameType
from typing import Any, TypeVar

import click
from rich.console import Console

from kqueue import KQueue, KQueueError, RunReport, SweepReport, demo
from kqueue.app import load_queue

#: Jobs, and bytes of text, that are read before they are added together.
BATCH_JOBS = 1_000
BATCH_BYTES = 4 * 2**20

OK, JOBS_FAILED, COULD_NOT, INTERRUPTED = 0, 1, 2, 130

Command = TypeVar("Command", bound=Callable[..., Any])


def main(args: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status. Whatever it raises becomes one line on stderr."""
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
        # Who read our output has gone; nor can Python's own flush at exit write to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(JOBS_FAILED)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (KQueueError, ValueError, TypeError) as error:
        _fail(str(error))
    sys.exit(status)


def _fail(message: str, status: int = COULD_NOT) -> None:
    click.echo(f"kqueue: {' '.join(message.splitlines())}", err=True)
    sys.exit(status)


def _queue_options(command: Command) -> Command:
    store = click.option("--store", envvar="KQUEUE_STORE", metavar="URL", help="Or set KQUEUE_STORE.")
    broker = click.option("--broker", envvar="KQUEUE_BROKER", metavar="URL", help="Or set KQUEUE_BROKER.")
    return store(broker(command))


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def _queue(store: str | None, broker: str | None) -> KQueue:
    if not store:
        raise ValueError("no store: give --store or set KQUEUE_STORE, to sqlite:///jobs.db for one")
    if store == "memory:":
        raise ValueError("store: memory: ends with this command; give one that stays, such as sqlite:///jobs.db")
    return KQueue(store=store, broker=broker or None)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
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


# -- add -----------------------------------------------------------------------------------------------------


@cli.command()
@_queue_options
@click.argument("job_type", metavar="TYPE")
@click.argument("payloads", metavar="[PAYLOAD...]", nargs=-1)
@click.option("--lines", metavar="FILE", help="One PAYLOAD on each line of FILE; - is the standard input.")
@click.option("--priority", metavar="NAME|N", help="URGENT, HIGH, NORMAL, LOW, BULK, or 0..2**32-1.")
@click.option("--delay", type=float, metavar="SECONDS", help="Run it not before then.")
@click.option("--ttr", type=float, metavar="SECONDS", help="Time to run: how long a claim holds.")
@click.option("--count", "only_count", is_flag=True, help="Print how many were added, not their ids.")
def add(
    *,
    store: str | None,
    broker: str | None,
    job_type: str,
    payloads: tuple[str, ...],
    lines: str | None,
    only_count: bool,
    **options: Any,
) -> None:
    """Add jobs of TYPE, one for each PAYLOAD, and print their ids.

    A PAYLOAD is JSON. A lone - reads one from each line of the standard input. No PAYLOAD at all is null.
    """
    if payloads == ("-",):
        payloads, lines = (), lines or "-"
    if payloads and lines:
        raise ValueError("add: give either PAYLOADs or --lines, not both")
    given = {name: value for name, value in options.items() if value is not None}
    if str(given.get("priority", "")).isdecimal():
        given["priority"] = int(given["priority"])

    added = 0
    with _queue(store, broker) as queue, closing(_texts(payloads, lines)) as texts:
        try:
            for batch in _batches(texts):
                ids = queue.add_jobs(job_type, batch, **given)
                added += len(ids)
                if not only_count:
                    click.echo("\n".join(ids))
        except (KQueueError, ValueError, TypeError) as error:
            if added == 0:
                raise
            raise click.ClickException(f"{error}; {added} jobs before were added") from error
    if only_count:
        click.echo(added)


def _texts(payloads: Sequence[str], lines: str | None) -> Generator[tuple[str, bytes], None, None]:
    """Each payload's text, with what to call it in an error."""
    if lines is None:
        for number, text in enumerate(payloads or ["null"], 1):
            yield f"payload {number}", os.fsencode(text)
        return
    name = "standard input" if lines == "-" else lines
    with _open_lines(lines) as file:
        for number, line in enumerate(file, 1):
            if not line.isspace():
                yield f"{name}, line {number}", line


def _open_lines(path: str) -> AbstractContextManager[Iterable[bytes]]:
    if path != "-":
        return open(path, "rb")
    # Not by its number: where it is closed, 0 may be the store's own file by now.
    if sys.stdin is None:
        raise ValueError("standard input: it is closed; give PAYLOADs or --lines FILE")
    return nullcontext(sys.stdin.buffer)


def _batches(texts: Iterable[tuple[str, bytes]]) -> Iterator[list[object]]:
    """Parsed payloads in lists that are bounded, so that a file of any length takes little memory."""
    batch: list[object] = []
    size = 0
    for name, text in texts:
        batch.append(_parse(name, text))
        size += len(text)
        if len(batch) == BATCH_JOBS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _parse(name: str, text: bytes) -> object:
    try:
        return json.loads(text.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        shown = text.decode(errors="replace").strip()
        raise ValueError(
            f"{name}: expected JSON, got {shown!r:.80} ({error}); a string has its own quotes, as in '\"text\"'"
        ) from None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


# -- run -----------------------------------------------------------------------------------------------------


@cli.command()
@click.option("--app", required=True, metavar="MODULE:QUEUE", help="Where the KQueue and its handlers are.")
@click.option("--count-limit", type=int, metavar="N", help="Run N jobs at most.")
@click.option("--time-limit-ms", type=float, metavar="N", help="Take no new job after so many milliseconds.")
@click.option("--wait", is_flag=True, help="Wait for jobs, until a limit or a signal ends it.")
@_json_option
def run(app: str, count_limit: int | None, time_limit_ms: float | None, wait: bool, as_json: bool) -> int:
    """Run jobs, for cron: exit status 0 if none failed, 1 if some did, 2 if they could not be run.

    SIGTERM or SIGINT (Ctrl-C) ends it after the job that runs; a second SIGINT interrupts that one too.
    """
    queue = load_queue(app)
    with queue:
        _stop_at_signals(queue)
        report = queue.run_jobs(count_limit=count_limit, time_limit_ms=time_limit_ms, wait=wait)
    _print_report(report, as_json)
    return JOBS_FAILED if report.retried or report.dead or report.lost_lease else OK


def _stop_at_signals(queue: KQueue) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        queue.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


# -- status and sweep ----------------------------------------------------------------------------------------


@cli.command()
@_queue_options
@_json_option
def status(store: str | None, broker: str | None, as_json: bool) -> None:
    """Show how many jobs stand where, and what the tubes hold."""
    with _queue(store, broker) as queue:
        jobs = {type: queue.counts(type) for type in queue.store.types()}
        tubes, broker_error = _depths(queue, list(jobs))
        store_address = queue.store.address
        broker_address = queue.broker.address if queue.broker.carries_pointers else None
    if as_json:
        types = {type: {"jobs": counts, "tube": tubes.get(type)} for type, counts in jobs.items()}
        servers = {"store": store_address, "broker": broker_address, "broker_error": broker_error}
        _print_json({**servers, "types": types})
        return
    click.echo(f"store   {store_address}\nbroker  {broker_address or 'none'}")
    if broker_error:
        click.echo(f"        unreachable: {broker_error}")
    _print_columns("jobs", jobs)
    _print_columns("tube", tubes)


def _depths(queue: KQueue, types: list[str]) -> tuple[dict[str, dict[str, int]], str | None]:
    """What the tubes hold, or why that cannot be said. The jobs are in the store all the same."""
    try:
        return queue.broker.depths(types), None
    except KQueueError as error:
        return {}, str(error)


def _print_columns(title: str, rows: dict[str, dict[str, int]]) -> None:
    if not rows:
        return
    heads = list(next(iter(rows.values())))
    width = max(len(title), *(len(type) for type in rows))
    click.echo(f"\n{title:{width}}" + "".join(f"{head:>10}" for head in heads))
    for type, numbers in rows.items():
        click.echo(f"{type:{width}}" + "".join(f"{numbers[head]:>10}" for head in heads))


@cli.command()
@_queue_options
@_json_option
def sweep(store: str | None, broker: str | None, as_json: bool) -> None:
    """Repair now: make due jobs ready, take back expired leases, put lost pointers again."""
    with _queue(store, broker) as queue:
        _print_report(queue.sweep(), as_json)


def _print_report(report: RunReport | SweepReport, as_json: bool) -> None:
    values = dataclasses.asdict(report)
    if as_json:
        _print_json(values)
        return
    seconds = values.pop("seconds")
    numbers = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in values.items())
    click.echo(f"{numbers} in {seconds:.2f} s")


def _print_json(value: object) -> None:
    click.echo(json.dumps(value))
