"""Find the KQueue that ``MODULE:QUEUE`` names in a user's own code."""

import importlib
import operator
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from kqueue import KQueue
from kqueue.model.reasons import own_place


def load_queue(app: str, *, to_run: bool = True) -> KQueue:
    """Import the module, with the current folder on the path, and return its KQueue. One that is ``to_run`` jobs
    must have handlers.

    Raises ``ValueError`` that says, on one line, which part of ``app`` is wrong.
    """
    name, _, attribute = app.partition(":")
    if not name or not attribute:
        raise ValueError(f"--app: expected MODULE:QUEUE, such as shop.jobs:queue, got {app!r}")
    module = _import(name)
    try:
        queue = operator.attrgetter(attribute)(module)
    except AttributeError:
        found = _queues_in(module)
        raise ValueError(f"--app: module {name} has no {attribute!r}; {found}{_another(module)}") from None
    if not isinstance(queue, KQueue):
        raise ValueError(f"--app: {app} is no KQueue but of {type(queue)}; {_queues_in(module)}{_another(module)}")
    if to_run and not queue.types():
        raise ValueError(f"--app: {app} has no handler; {name} must import what calls @{attribute}.handler")
    return queue


def serve(queue: KQueue, types: Sequence[str] | None, except_types: Sequence[str] | None) -> None:
    """Let this process run the jobs of ``types`` only, or of all but ``except_types``; None: all.

    Raises ``ValueError`` for one that has no handler, and where none is left.
    """
    known = queue.types()
    for option, named in (("--type", types), ("--except", except_types)):
        for type in named or ():
            if type not in known:
                raise ValueError(f"{option}: {type} has no handler; these have one: {', '.join(known)}")
    queue.parts.handlers.choose(lambda type: (types is None or type in types) and type not in (except_types or ()))
    if not queue.types():
        raise ValueError(f"--except: no type is left of {', '.join(types or known)}")


def _import(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        where = _where(error)
        root = sys.modules.get(name.partition(".")[0])
        if isinstance(error, ModuleNotFoundError) and root is not None:
            where += _another(root)
        raise ValueError(f"--app: cannot import {name}: {type(error).__name__}: {error}{where}") from None


def _where(error: BaseException) -> str:
    """The last of the user's own lines on the way to ``error``, if any, since no traceback is shown."""
    if isinstance(error, SyntaxError):
        return ""  # its message says where
    place = own_place(error)
    return "" if place is None else f" ({place[0]}, line {place[1]})"


def _another(module: ModuleType) -> str:
    """Which file it is, where that is not the one that this folder has by its name."""
    here = os.path.join(os.getcwd(), *module.__name__.split("."))
    ours = next((path for path in (f"{here}.py", os.path.join(here, "__init__.py")) if os.path.exists(path)), None)
    file = getattr(module, "__file__", None)
    if ours is None or (file is not None and os.path.exists(file) and os.path.samefile(file, ours)):
        return "" if ours is not None or file is None else f" (it is {file})"
    return (
        f". It is {file or 'built into Python'}, which has the name of {ours} and was imported before that: give"
        " yours another name"
    )


def _queues_in(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, KQueue)]
    return f"it has the KQueue {' and '.join(names)}" if names else "it has no KQueue at all"
