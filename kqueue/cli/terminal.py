"""What the commands share: the options that name a queue, and lines on the terminal."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click

from kqueue import KQueue, RunReport, SweepReport
from kqueue.cli.exits import complain
from kqueue.config.configuration import Configuration, load
from kqueue.config.keys import Key
from kqueue.config.layers import DEFAULT, ENV_VARIABLE, FILE_VARIABLE
from kqueue.dispatch.naming import remembered_broker
from kqueue.worker.app import load_queue

Command = TypeVar("Command", bound=Callable[..., Any])


def _kept_option(name: str, metavar: str, text: str) -> Callable[[Command], Command]:
    """An option that is no argument of the command, but kept for :func:`_kept`."""

    def keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        context.meta[f"kqueue.{name}"] = value

    return click.option(f"--{name}", metavar=metavar, expose_value=False, callback=keep, help=text)


def _kept(name: str) -> str | None:
    """What the command that runs was given for it; None for nothing, or where it has no such option."""
    value: str | None = click.get_current_context().meta.get(f"kqueue.{name}")
    return value


def queue_options(command: Command) -> Command:
    """``--store`` and ``--broker`` or ``--app``, for :func:`make_queue` and :func:`find_queue`; and those of
    :func:`config_option`.
    """
    store = click.option("--store", metavar="URL", help="Or set KQUEUE_STORE, or store in the file.")
    broker = click.option(
        "--broker",
        metavar="URL",
        help="Or set KQUEUE_BROKER, or broker in the file; or else it is what the store remembers. none: without.",
    )
    app = _kept_option("app", "MODULE:QUEUE", "The KQueue of your own code, instead of --store and --broker.")
    return store(broker(app(config_option(command))))


_config_option = _kept_option(
    "config",
    "FILE",
    "The configuration. Or set KQUEUE_CONFIG; or else kqueue.toml in this folder, if it is there.",
)
_env_option = _kept_option(
    "env", "NAME", "The environment, whose file kqueue.NAME.toml comes after that. Or set KQUEUE_ENV."
)


def config_option(command: Command) -> Command:
    """``--config`` and ``--env``, for :func:`configured`."""
    return _config_option(_env_option(command))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def key_options(keys: Sequence[Key]) -> Callable[[Command], Command]:
    """An option for each key that can be configured. The command gets a text as it was given, or None, or each of
    a list; what it may be, :func:`configured` says, as of a text of the environment.
    """

    def add(command: Command) -> Command:
        for key in reversed(keys):
            default = "" if key.default is None else f" [default: {key.default}]"
            names, is_list = (key.option, key.name), bool(key.option_of_one)
            text = f"{key.help}{default}"
            if key.is_flag:  # as a text, like all others; with --config and the environment it may be false
                command = click.option(*names, is_flag=True, flag_value="true", default=None, help=key.help)(
                    command
                )
                continue
            command = click.option(*names, metavar=key.metavar, multiple=is_list, help=text)(command)
        return command

    return add


def configured(options: Mapping[str, object]) -> Configuration:
    """The configuration of the command that runs. ``options``: what it was given, by the names of its options
    (``max_jobs`` for ``--max-jobs``); None for what it was not. Raises ``ValueError`` for what is refused, in any
    layer.
    """
    return load(_kept("config"), options, env=_kept("env"))


def hand_on_config() -> None:
    """An app that reads the configuration, here or in children, is to read the files that --config and --env name.

    Raises ``ValueError`` if one of them is not there, or holds what is refused.
    """
    file, env = _kept("config"), _kept("env")
    if file is None and env is None:
        return
    load(file, env=env)
    if file is not None:
        os.environ[FILE_VARIABLE] = os.path.abspath(file)
    if env is not None:
        os.environ[ENV_VARIABLE] = env


def make_queue(store: str | None, broker: str | None) -> KQueue:
    """The queue of the options and the configuration; its store may be new. Where they name no broker, it is the
    one that the store remembers, and that is said.

    Raises ``ValueError`` for a store that no command can use.
    """
    return _queue_of_app(store, broker) or _make_queue(configured({"store": store, "broker": broker}))


def find_queue(store: str | None, broker: str | None, *, rings: bool = True) -> KQueue:
    """The same, for commands that only make sense where jobs are: none of them makes a store, since a mistyped name
    would look like a queue with no jobs. Raises ``ValueError`` if it is not there. ``rings``: whether the command
    has anything to do with a broker.
    """
    queue, source = _queue_of_app(store, broker), "the app"
    if queue is None:
        configuration = configured({"store": store, "broker": broker})
        queue = _make_queue(configuration, rings)
        _, _, source = configuration.setting("store")
    check_there(queue, source, "kqueue add makes a new one")
    return queue


def check_there(queue: KQueue, source: str, advice: str) -> None:
    """Raises ``ValueError`` if there is no store, with who named it and what makes one."""
    if not queue.store.exists():
        address = queue.store.address
        raise ValueError(f"store: there is no store of KQueue at {address}, which {source} names ({advice})")


def _queue_of_app(store: str | None, broker: str | None) -> KQueue | None:
    """What ``--app`` names; None if it was not given."""
    app = _kept("app")
    if app is None:
        return None
    if store is not None or broker is not None:
        raise ValueError(f"--app: {app} has its own store and broker; give no --store and no --broker beside it")
    hand_on_config()
    queue = load_queue(app, to_run=False)
    if queue.store.shared_url is None:
        address = queue.store.address
        raise ValueError(f"--app: the store of {app} is {address}, which this command has for itself alone")
    return queue


def _make_queue(configuration: Configuration, rings: bool = True) -> KQueue:
    _, url, source = configuration.setting("store")
    if url is None:
        raise ValueError(
            "no store: give --store, or set KQUEUE_STORE, or store in kqueue.toml; to sqlite:///jobs.db for one"
        )
    queue = KQueue.from_config(configuration)
    if queue.store.shared_url is None:
        address = queue.store.address
        raise ValueError(
            f"store: {address} ({source}) ends with this command; give one that stays, such as sqlite:///jobs.db"
        )
    _, _, named_by = configuration.setting("broker")
    broker = remembered_broker(queue.store) if rings and named_by == DEFAULT and queue.store.exists() else None
    if broker is None:
        return queue
    complain(
        f"the broker is {broker}, as the store remembers; --broker none for none, kqueue forget-broker to forget it"
    )
    return KQueue.from_config(configuration, store=queue.store, broker=broker)


def print_json(value: object) -> None:
    """Print ``value`` as JSON, on one line."""
    click.echo(json.dumps(value))


def print_report(report: RunReport | SweepReport, as_json: bool) -> None:
    """What a run or a sweep did, on one line."""
    values = dataclasses.asdict(report)
    if as_json:
        print_json(values)
        return
    seconds = values.pop("seconds")
    if not values.get("unknown"):  # it is rare, and means nothing to who has not read of it
        values.pop("unknown", None)
    numbers = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in values.items())
    click.echo(f"{numbers} in {seconds:.2f} s")


def print_columns(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print :func:`columns`."""
    for line in columns(heads, rows):
        click.echo(line)


def columns(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Lines: rows under their heads, numbers to the right, all else to the left."""
    cells = [[one_line(str(value)) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    numeric = [isinstance(value, int) for value in rows[0]]
    for line in [heads, *cells]:
        each = zip(line, widths, numeric, strict=True)
        aligned = [f"{cell:>{width}}" if right else f"{cell:{width}}" for cell, width, right in each]
        yield "  ".join(aligned).rstrip()


def one_line(text: str) -> str:
    """``text`` without line ends, and without control characters that would steer the terminal."""
    return harmless(" ".join(text.split()))


def harmless(line: str) -> str:
    """``line`` as it stands, without control characters that would steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in line.expandtabs())
