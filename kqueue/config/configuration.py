"""The configuration: defaults, then TOML files, then the environment's variables, then a command's options.

The files are what all environments share (``kqueue.toml``), what is another in one of them
(``kqueue.production.toml``), and what is so on one machine alone (``kqueue.local.toml``). A value of a later one
wins. What may stand where is in :mod:`kqueue.config.keys`, how it is read in
:mod:`kqueue.config.layers`.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kqueue.config import layers
from kqueue.config.keys import LIMITS, NONE, OPTIONS, QUEUE, WORKER, Key, nearest
from kqueue.config.layers import DEFAULT, ENV_VARIABLE, FILE_VARIABLE, URLS, Layer, Setting
from kqueue.model.retry import Delay, growing
from kqueue.model.urls import showable, without_passwords

#: The file that is read if it is in the current folder, and no other one was named.
DEFAULT_FILE: Final = "kqueue.toml"
#: Bytes of a file at most: what is larger is no configuration.
MAX_FILE: Final = 2**20
#: What stands in the name of the file of one machine, in the place of an environment's.
LOCAL: Final = "local"
#: The name of an environment, which becomes a part of a file's.
ENVIRONMENT: Final = re.compile(r"[A-Za-z0-9_-]{1,60}", re.ASCII)

_TYPES: Final = "types."


@dataclasses.dataclass(frozen=True, slots=True)
class Configuration:
    """Every value with its source."""

    #: The files that were read, as they were named or found, in the order in which they were laid over each other.
    files: tuple[str, ...]
    layer: Layer
    #: The name of the environment; None if none was named.
    env: str | None = None

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

    def set_up(self, options: Callable[..., object], limit: Callable[..., object]) -> None:
        """Set what is configured of types, by ``options(type, ...)`` and ``limit(type, ...)`` of a queue."""
        for type, given in self.options().items():
            options(type, **given)
        for type, bounds in self.limits().items():
            limit(type, **bounds)

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
    *,
    env: str | None = None,
) -> Configuration:
    """Read all layers and lay them over each other.

    The file is ``path``, or else what ``KQUEUE_CONFIG`` names; these must be there. Or else ``kqueue.toml`` in the
    current folder, if it is there. Beside it stands that of the environment ``env``, or else of what ``KQUEUE_ENV``
    names: ``kqueue.production.toml`` for ``production``, which must be there; ``none`` is none. Then
    ``kqueue.local.toml``, if it is there. ``options``: what a command was given, by the names of its options; None
    stands for what was not given. ``environment``: the process's own variables unless given.

    Raises ``ValueError``, on one line, for a file that cannot be read or is no TOML, a key that is not known, and a
    value that is refused; it names the file and the line, or the variable.
    """
    try:
        return _load(path, options or {}, os.environ if environment is None else environment, env)
    except ValueError as error:
        # A URL may stand where none belongs.
        raise ValueError(without_passwords(str(error))) from None


def _load(
    path: str | os.PathLike[str] | None,
    options: Mapping[str, object],
    environment: Mapping[str, str],
    env: str | None,
) -> Configuration:
    named = os.fspath(path) if path is not None else environment.get(FILE_VARIABLE) or None
    if named == "":
        raise ValueError("config: expected the name of a file, got ''")
    name = DEFAULT_FILE if named is None else named
    source, chosen = _environment(env, environment)
    # Each with who names it, where it must be there.
    wanted = [(name, None if named is None else "")]
    if source is not None and chosen is not None:
        wanted.append((_beside(name, chosen), f" ({source} names it)"))
    wanted.append((_beside(name, LOCAL), None))
    texts = {file: text for file, named_by in wanted if (text := _read(file, named_by)) is not None}
    of_files: dict[str, Setting] = {}
    for file, text in texts.items():
        of_files |= layers.of_file(file, text)
    layers.check_periods(of_files)
    merged = {
        **layers.of_defaults(),
        **of_files,
        **layers.of_environment(environment),
        **layers.of_options(options),
    }
    return Configuration(tuple(texts), merged, chosen)


def _environment(env: str | None, environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    """(who names it, its name): as it was given, or else as the variable says; checked."""
    source, name = (
        ("--env", env) if env is not None else (f"environment {ENV_VARIABLE}", environment.get(ENV_VARIABLE))
    )
    if name == NONE or (env is None and not name):
        return None, None
    if not isinstance(name, str) or ENVIRONMENT.fullmatch(name) is None:
        raise ValueError(
            f"{source}: expected a name of letters, digits, - and _, as in production, got {name!r:.80}"
        )
    if name == LOCAL:
        raise ValueError(f"{source}: {LOCAL} is no environment: its file is that of one machine, and always read")
    return source, name


def _beside(name: str, part: str) -> str:
    """``kqueue.production.toml`` for ``kqueue.toml``, in the same folder."""
    path = Path(name)
    return str(path.with_name(f"{path.stem}.{part}{path.suffix}")) if path.name else name


def shown(setting: Setting) -> Any:
    """The value as the file would have it, and as JSON takes it; a URL without its password."""
    value = setting.value
    if setting.key in URLS and value is not None:
        return showable(value)
    if not isinstance(value, Delay):
        return value
    return value.first if value == growing(value.first) else dataclasses.asdict(value)


def _read(name: str, named_by: str | None) -> str | None:
    """The text of a file. ``named_by``: what to say of who names it, which must be there; None: it need not be."""
    try:
        with Path(name).open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError as error:
        if named_by is None:
            return None
        raise ValueError(f"{name}: cannot be read: {error.strerror}{named_by}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: cannot be read: {getattr(error, 'strerror', error)}") from None
    if len(content) > MAX_FILE:
        raise ValueError(f"{name}: has more than {MAX_FILE} bytes, so it is no configuration")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: is no TOML, which is UTF-8: {error}") from None
