"""The command line.

Exit status: 0 done, 1 some jobs failed or were not there, 2 could not be done (one line on stderr says why).
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from kqueue import KQueueError, __version__
from kqueue.cli.exits import COULD_NOT, INTERRUPTED, SOME_FAILED, complain
from kqueue.system import streams

#: Each command, and where it is: ``module:function`` in this folder. A process imports the one that it runs, since
#: cron pays for it each minute.
COMMANDS = {
    "add": "add:add",
    "backup": "backup:backup",
    "change": "retry_delete:change",
    "config": "config:config_command",
    "cron": "looks.cron:cron",
    "delete": "retry_delete:delete",
    "demo": "demo:demo",
    "doctor": "looks.doctor:doctor",
    "empty-tubes": "sweep:empty_tubes",
    "forget-broker": "forget_broker:forget_broker",
    "list": "looks.jobs:list_command",
    "pause": "pauses:pause",
    "purge": "retry_delete:purge",
    "restore": "backup:restore",
    "resume": "pauses:resume",
    "retry": "retry_delete:retry",
    "run": "run:run",
    "show": "looks.jobs:show",
    "status": "looks.status:status",
    "stats": "looks.stats:stats",
    "sweep": "sweep:sweep",
    "why": "looks.jobs:why",
    "worker": "worker:worker",
    "workers": "looks.workers:workers",
}


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


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"kqueue.cli.{module}"), name)
        return command


@click.group(cls=_Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kqueue", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """KQueue: a job queue on beanstalkd that loses no job."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
