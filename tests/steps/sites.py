"""The sites: where the product's text calls for I/O, found without running it. Pure.

What is an I/O call is told by its name: a method of sqlite3's, pymongo's or a socket's, or one of our own that only
does such a call for another. So a new one is seen as soon as it is written.
"""

import ast
import re
import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database

from kqueue.contracts.store import JobStore
from tests.steps.tap import Call

#: Of the drivers' methods those that send nothing.
SILENT = {
    "start_session",
    "with_options",
    "get_database",
    "get_collection",
    "get_default_database",
    "cursor",
    "close",
}
#: Those that send only once their rows are asked for: to be seen in the same function is enough.
LAZY = {"find", "aggregate", "rewind", "find_raw_batches", "aggregate_raw_batches"}
#: What is called by more than its last name.
FORMS = re.compile(
    # a socket and its reader
    r"(.*\.)?(create_connection|sendall|sendto|sendmsg|recv|recv_into|readline|readinto)|.*(reader|sock)\.\w*read\w*"
    r"|sock\.(connect|send)|sqlite3\.connect|(connection|client|link)\.close"
    # ours
    r"|.*connection\.exchange|.*connected\(\)\.(exchange|reserve)|.*endpoint\.connect|self\._read"
    r"|(read|write|matching|insert|take|group|make_indexes|migrate|_look_at_clock|deny_solitude|_roll_back)"
)
#: The embedded broker's I/O is its store's.
OF_THE_STORE = re.compile(rf"self\._store\.({'|'.join(set(vars(JobStore)) - {'now', 'address'})})")


def _methods(*classes: type) -> set[str]:
    return {
        name
        for kind in classes
        for name in dir(kind)
        if not name.startswith("_") and callable(getattr(kind, name, None))
    }


METHODS = {"rewind", "commit_transaction", "abort_transaction"} | _methods(
    sqlite3.Connection, Collection, Database, MongoClient
) - SILENT


class Site(NamedTuple):
    """One call in the text."""

    file: str
    function: str
    text: str
    end: tuple[int, int]
    #: Of the function around it: first and last line.
    lines: tuple[int, int]
    lazy: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.function}: {self.text}"


def sites(file: str, source: str) -> Iterator[Site]:
    """All of a file."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_io(node.func):
            around = [one for one in functions if one.lineno <= node.lineno <= (one.end_lineno or 0)]
            inner = max(around, key=lambda one: one.lineno, default=None)
            yield Site(
                file,
                inner.name if inner else "the module",
                " ".join(ast.unparse(node).split())[:80],
                (node.end_lineno or 0, node.end_col_offset or 0),
                (inner.lineno, inner.end_lineno or 0) if inner else (0, 0),
                isinstance(node.func, ast.Attribute) and node.func.attr in LAZY,
            )


def uncovered(found: Iterable[Site], calls: Iterable[Call]) -> list[Site]:
    """Those that no call came from."""
    exact = {(call.file, (call.end_line, call.end_column)) for call in calls}
    lines = {(call.file, call.line) for call in calls}

    def is_covered(site: Site) -> bool:
        if site.lazy:
            first, last = site.lines
            return any((site.file, line) in lines for line in range(first, last + 1))
        return (site.file, site.end) in exact

    return [site for site in found if not is_covered(site)]


def _is_io(function: ast.expr) -> bool:
    text = ast.unparse(function)
    by_name = isinstance(function, ast.Attribute) and function.attr in METHODS
    return by_name or bool(FORMS.fullmatch(text)) or bool(OF_THE_STORE.fullmatch(text))
