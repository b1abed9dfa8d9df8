"""``kqueue config``: what is configured, and where each value came from."""

import click

from kqueue.cli.terminal import config_option, configured, json_option, key_options, print_columns, print_json
from kqueue.config.configuration import shown
from kqueue.config.keys import NONE, QUEUE, WORKER

#: Those that any command has an option for, so that a command line can be tried out here.
_KEYS = [*(key for key in QUEUE if key.name in {"store", "broker"}), *WORKER]


@click.command("config")
@key_options(_KEYS)
@config_option
@json_option
def config_command(as_json: bool, **options: str | None) -> None:
    """Show what is configured, and where each value came from.

    Defaults, then the files kqueue.toml, kqueue.NAME.toml of the environment --env NAME, and kqueue.local.toml,
    then variables (KQUEUE_STORE, KQUEUE_WORKER_THREADS, ...), then the options of a command, such as those below: a
    later one wins.
    """
    configuration = configured(options)
    values = {setting.key: shown(setting) for setting in configuration.settings()}
    sources = {setting.key: setting.source for setting in configuration.settings()}
    if as_json:
        settings = {key: {"value": value, "source": sources[key]} for key, value in values.items()}
        print_json({"files": configuration.files, "env": configuration.env, "settings": settings})
        return
    click.echo(f"files  {', '.join(configuration.files) or 'none'}\n")
    print_columns(["key", "value", "source"], [[key, _text(value), sources[key]] for key, value in values.items()])


def _text(value: object) -> str:
    """As the file has it, but for the quotes of a text."""
    if value is None:
        return NONE
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name} = {_text(one)}' for name, one in value.items())}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).lower() if isinstance(value, bool) else str(value)
