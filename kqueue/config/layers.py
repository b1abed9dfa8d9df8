"""The layers of a configuration, each read from where it stands: a file's text, an environment, options. Pure.

A layer is a mapping from a key's full name (``store``, ``worker.threads``, ``types.resize.ttr``) to its
:class:`Setting`. Layers are laid one over the other by ``|``.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeAlias

from kqueue.config.keys import LIMITS, OPTIONS, QUEUE, SHOWN, WORKER, Key, near, nearest
from kqueue.model import checks
from kqueue.model.urls import showable

logger = logging.getLogger("kqueue")

#: The variable that names the file.
FILE_VARIABLE: Final = "KQUEUE_CONFIG"
#: The variable that names the environment, which has a file of its own.
ENV_VARIABLE: Final = "KQUEUE_ENV"
#: Those that say which files are read.
OF_FILES: Final = (FILE_VARIABLE, ENV_VARIABLE)
#: The keys that are URLs.
URLS: Final = frozenset({"store", "broker"})
#: The source of what nobody has set.
DEFAULT: Final = "default"
#: Before the names of all variables.
PREFIX: Final = "KQUEUE_"
#: Variables that begin like ours and are not. Kubernetes sets some for each service, and one may be named kqueue
#: (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables). KQUEUE_MONGOD tells the
#: project's own tests where a server is.
FOREIGN: Final = re.compile(r"KQUEUE_(?:.*_)?(?:SERVICE_HOST|SERVICE_PORT|PORT)(?:_.*)?|KQUEUE_MONGOD")


class Setting(NamedTuple):
    """A value, and where it came from."""

    #: Its full name.
    key: str
    value: Any
    #: :data:`DEFAULT`, ``kqueue.toml:3``, ``environment KQUEUE_STORE`` or ``--store``.
    source: str

    def __repr__(self) -> str:
        value = showable(self.value) if self.key in URLS and self.value is not None else self.value
        return f"Setting(key={self.key!r}, value={value!r}, source={self.source!r})"


Layer: TypeAlias = Mapping[str, Setting]
_Path: TypeAlias = tuple[str, ...]


class _Table(NamedTuple):
    """A place of the file, and what may stand there."""

    #: Where it is, for messages.
    where: str
    keys: Mapping[str, Key]


_TOP: Final = _Table("at the top of the file", {key.name: key for key in QUEUE})
_WORKER: Final = _Table("in [worker]", {key.name: key for key in WORKER})
_TYPE: Final = _Table("in [types.NAME]", {key.name: key for key in (*OPTIONS, *LIMITS)})
#: By the name of the option on a command line: the full name, and the key.
_OPTIONS: Final = {
    **{name: (name, key) for name, key in _TOP.keys.items()},
    **{name: (f"worker.{name}", key) for name, key in _WORKER.keys.items()},
}
#: By the name of the variable.
_VARIABLES: Final = {
    f"{PREFIX}{full_name.replace('.', '_').upper()}": (full_name, key) for full_name, key in _OPTIONS.values()
}


def of_defaults() -> Layer:
    """What holds where nobody says anything. It has no key of a type."""
    return {full_name: Setting(full_name, key.default, DEFAULT) for full_name, key in _OPTIONS.values()}


def of_file(name: str, text: str) -> Layer:
    """What a TOML file says; ``name`` is for messages. Raises ``ValueError`` that names file, line and key."""
    import tomllib  # noqa: PLC0415 (many have no file)

    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: is no TOML: {error}") from None
    lines = _lines(text, tomllib.loads)

    def source_of(path: _Path) -> str:
        return f"{name}:{lines[path]}" if path in lines else name

    layer = {}
    for path, given, table in _entries(document, source_of):
        source = source_of(path)
        with blamed(source):
            full_name = ".".join(path)
            layer[full_name] = Setting(full_name, _known(path, given, table).value(given), source)
    return layer


def check_periods(layer: Layer) -> None:
    """Of all files together. Raises ``ValueError`` for a period of starts that are not bounded."""
    for key, _, source in layer.values():
        its_type = key.removesuffix(".period")
        if its_type != key and f"{its_type}.starts" not in layer:
            raise ValueError(f"{source}: period: it is that of starts, which {its_type[:SHOWN]} does not have")


def of_environment(environment: Mapping[str, str]) -> Layer:
    """What ``KQUEUE_STORE``, ``KQUEUE_WORKER_THREADS`` and so on say. One that is empty is as good as not there.

    Raises ``ValueError`` that names the variable: also for one that is nearly one of ours. Any other that begins
    like ours is warned of: it may be another program's.
    """
    layer = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in OF_FILES or FOREIGN.fullmatch(variable):
            continue
        source = f"environment {variable}"
        if variable not in _VARIABLES:
            best = near(variable, [*_VARIABLES, *OF_FILES])
            if best is not None:
                raise ValueError(f"{source[:SHOWN]}: there is no such key; the nearest one is {best}")
            logger.warning("%s: there is no such key, so it is not heeded", source[:SHOWN])
        elif text:
            full_name, key = _VARIABLES[variable]
            with blamed(source):
                layer[full_name] = Setting(full_name, key.value(key.read(text)), source)
    return layer


def of_options(options: Mapping[str, object]) -> Layer:
    """What a command was given, by the names of its options: ``retry_delay`` for ``--retry-delay``.

    None, or none of a list: it was not given. A text is read as one of the environment is. Raises ``ValueError``
    that names the option.
    """
    layer = {}
    for name, given in options.items():
        if name not in _OPTIONS:
            raise ValueError(f"{name}: there is no such key; the nearest one is {nearest(name, _OPTIONS)}")
        full_name, key = _OPTIONS[name]
        if given in (None, ()):
            continue
        try:
            value = key.value(key.read(given) if isinstance(given, str) else given)
        except (ValueError, TypeError) as error:
            # It begins with the name of the key.
            raise ValueError(str(error).replace(name, key.option, 1)) from None
        layer[full_name] = Setting(full_name, value, key.option)
    return layer


@contextmanager
def blamed(source: str) -> Iterator[None]:
    """Whatever is refused inside is refused with the name of its source."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: {error}") from None


def _entries(
    document: Mapping[str, object], source_of: Callable[[_Path], str]
) -> Iterator[tuple[_Path, object, _Table]]:
    """Each entry of a file: where it stands, what it says, and the table that it stands in."""

    def table_at(path: _Path, value: object) -> Mapping[str, object]:
        if not isinstance(value, dict):
            names = ".".join(map(_shown, path))
            raise ValueError(f"{source_of(path)}: {names}: expected a table, [{names}], got {value!r:.80}")
        return value

    for first, value in document.items():
        if first == "worker":
            for option, given in table_at((first,), value).items():
                yield (first, option), given, _WORKER
        elif first == "types":
            for type, options in table_at((first,), value).items():
                for option, given in table_at((first, type), options).items():
                    yield (first, type, option), given, _TYPE
        else:
            yield (first,), value, _TOP


def _known(path: _Path, given: object, table: _Table) -> Key:
    """The key at ``path``. Raises ``ValueError`` that names the one that was meant, as far as one can tell."""
    name = path[-1]
    if table is _TYPE:
        checks.job_type(path[1])
    if name in table.keys:
        return table.keys[name]
    said = f"{'.'.join(map(_shown, path))}: there is no such key"
    if table is _TYPE and isinstance(given, dict):
        raise ValueError(
            f'{said}; a type with a dot in its name has quotes, as in [types."{path[1]}.{_shown(name)}"]'
        )
    for home in (_TOP, _WORKER, _TYPE):
        if name in home.keys:
            raise ValueError(f"{said}; {name} belongs {home.where}")
    known = [*table.keys, *(["worker", "types"] if table is _TOP else [])]
    raise ValueError(f"{said}; the nearest one is {nearest(name, known)}")


def _shown(name: str) -> str:
    """A name of the file for a message: TOML allows any characters in quotes."""
    return name[:SHOWN] if name.isprintable() else repr(name[:SHOWN])


def _lines(text: str, loads: Callable[[str], dict[str, Any]]) -> dict[_Path, int]:
    """The line that each entry and table begins on, from 1. Python's own reader of TOML does not tell.

    Each line is read by itself, so an entry that goes over several has none here.
    """
    lines: dict[_Path, int] = {}
    table: _Path = ()
    for number, line in enumerate(text.split("\n"), 1):
        try:
            found = list(_paths(loads(line.removesuffix("\r"))))
        except (ValueError, RecursionError):
            continue
        if line.lstrip().startswith("["):
            (table,) = found
            found = [()]
        for path in found:
            whole = (*table, *path)
            for end in range(1, len(whole) + 1):
                lines.setdefault(whole[:end], number)
    return lines


def _paths(document: Mapping[str, object]) -> Iterator[_Path]:
    """Where its values, and its empty tables, stand."""
    for name, value in document.items():
        if isinstance(value, dict) and value:
            yield from ((name, *path) for path in _paths(value))
        else:
            yield (name,)
