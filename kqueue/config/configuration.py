"""The configuration: defaults, then a TOML file, then the environment, then a command's options.

A value of a later one wins. What may stand where is in :mod:`kqueue.config.keys`, how it is read in
:mod:`kqueue.config.layers`.
"""

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kqueue.config import layers
from kqueue.config.keys import LIMITS, OPTIONS, QUEUE, WORKER, Key, nearest
from kqueue.config.layers import DEFAULT, FILE_VARIABLE, URLS, Layer, Setting
from kqueue.model.retry import Delay, growing
from kqueue.model.urls import showable, without_passwords

#: The file that is read if it is in the current folder, and no other one was named.
DEFAULT_FILE: Final = "kqueue.toml"
#: Bytes of a file at most: what is larger is no configuration.
MAX_FILE: Final = 2**20

_TYPES: Final = "types."


@dataclasses.dataclass(frozen=True, slots=True)
class Configuration:
    """Every value with its source."""

    #: The file that was read, as it was named; None if there was none.
    file: str | None
    layer: Layer

    def settings(self) -> list[Setting]:
        """All of them: the queue's, the worker's, and of types what was set for them."""
        return list(self.layer.values())

    def setting(self, key: str) -> Setting:
        """The one of a full name, such as ``store`` or ``worker.threads``."""
        return self.layer[key]

    def queue(self) -> dict[str, Any]:
        """The arguments of ``KQueue`` that were set, by their names; for the others it has the same defaults."""
        settings = [self.layer[key.name] for key in QUEUE]
        return {key: value for key, value, source in settings if source != DEFAULT}

    def worker(self) -> dict[str, Any]:
        """The options of ``kqueue worker``, by their names: ``max_jobs`` for ``--max-jobs``."""
        return {key.name: self.layer[f"worker.{key.name}"].value for key in WORKER}

    def options(self) -> dict[str, dict[str, Any]]:
        """By type, the arguments of ``KQueue.options`` that were set for it."""
        return self._of_types(OPTIONS)

    def limits(self) -> dict[str, dict[str, Any]]:
        """By type, the arguments of ``KQueue.limit`` that were set for it."""
        return self._of_types(LIMITS)

    def arguments(self, known: Collection[str], overrides: Mapping[str, Any]) -> dict[str, Any]:
        """What a queue is made with, by the names of its arguments, which are ``known``.

        Raises ``TypeError`` for an override of another name, and ``ValueError`` without a store.
        """
        for name in overrides:
            if name not in known:
                raise TypeError(f"{name}: KQueue has no such argument; the nearest one is {nearest(name, known)}")
        given = {**self.queue(), **overrides}
        if given.get("store") is None:
            raise ValueError("store: none is configured; give store=, or set it in kqueue.toml or KQUEUE_STORE")
        return given

    def _of_types(self, keys: Sequence[Key]) -> dict[str, dict[str, Any]]:
        wanted = {key.name for key in keys}
        found: dict[str, dict[str, Any]] = {}
        for key, value, _ in self.layer.values():
            table, _, name = key.rpartition(".")
            if table.startswith(_TYPES) and name in wanted:
                found.setdefault(table.removeprefix(_TYPES), {})[name] = value
        return found


def load(
    path: str | os.PathLike[str] | None = None,
    options: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Configuration:
    """Read all layers and lay them over each other.

    The file is ``path``, or else what ``KQUEUE_CONFIG`` names; these must be there. Or else ``kqueue.toml`` in the
    current folder, if it is there. ``options``: what a command was given, by the names of its options; None stands
    for what was not given. ``environment``: the process's own unless given.

    Raises ``ValueError``, on one line, for a file that cannot be read or is no TOML, a key that is not known, and a
    value that is refused; it names the file and the line, or the variable.
    """
    try:
        return _load(path, options or {}, os.environ if environment is None else environment)
    except ValueError as error:
        # A URL may stand where none belongs.
        raise ValueError(without_passwords(str(error))) from None


def _load(
    path: str | os.PathLike[str] | None, options: Mapping[str, object], environment: Mapping[str, str]
) -> Configuration:
    named = os.fspath(path) if path is not None else environment.get(FILE_VARIABLE) or None
    if named == "":
        raise ValueError("config: expected the name of a file, got ''")
    name = DEFAULT_FILE if named is None else named
    text = _read(name, must_be_there=named is not None)
    merged = {
        **layers.of_defaults(),
        **({} if text is None else layers.of_file(name, text)),
        **layers.of_environment(environment),
        **layers.of_options(options),
    }
    return Configuration(None if text is None else name, merged)


def shown(setting: Setting) -> Any:
    """The value as the file would have it, and as JSON takes it; a URL without its password."""
    value = setting.value
    if setting.key in URLS and value is not None:
        return showable(value)
    if not isinstance(value, Delay):
        return value
    return value.first if value == growing(value.first) else dataclasses.asdict(value)


def _read(name: str, *, must_be_there: bool) -> str | None:
    try:
        with Path(name).open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError as error:
        if not must_be_there:
            return None
        raise ValueError(f"{name}: cannot be read: {error.strerror}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: cannot be read: {getattr(error, 'strerror', error)}") from None
    if len(content) > MAX_FILE:
        raise ValueError(f"{name}: has more than {MAX_FILE} bytes, so it is no configuration")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: is no TOML, which is UTF-8: {error}") from None
