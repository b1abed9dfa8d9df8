"""The command line.

Exit status: 0 done, 1 some jobs failed or were not there, 2 could not be done (one line on stderr says why).
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click
from rich.console import Console

from kqueue import KQueueError
from kqueue.cli import demo
from kqueue.cli.add import add
from kqueue.cli.backup import backup, restore
from kqueue.cli.config import config_command
from kqueue.cli.doctor import doctor
from kqueue.cli.jobs import list_command, show, why
from kqueue.cli.pauses import pause, resume
from kqueue.cli.retry_delete import delete, retry
from kqueue.cli.run import run
from kqueue.cli.status import status
from kqueue.cli.sweep import empty_tubes, sweep
from kqueue.cli.terminal import COULD_NOT, INTERRUPTED, SOME_FAILED, complain
from kqueue.cli.worker import worker
from kqueue.cli.workers import workers
from kqueue.system import streams


def main(args: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status. Whatever it raises becomes one line on stderr."""
    streams.secure_program()
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
    commands=[
        add,
        run,
        worker,
        status,
        workers,
        doctor,
        why,
        sweep,
        empty_tubes,
        list_command,
        show,
        retry,
        delete,
        pause,
        resume,
        backup,
        restore,
        config_command,
    ],
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
