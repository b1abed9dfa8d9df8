"""The edges: where the product's I/O leaves Python. For the tests each asks the tap first.

=============  =========================================================  =================================
edge           a point is                                                 its natural error
=============  =========================================================  =================================
SQLite         connect, a statement with its rows, a close                ``disk I/O error``
beanstalkd     connect, a write of commands, a line or body read          the connection is reset
MongoDB        a command with its reply, as it goes over the wire         the reply never comes
=============  =========================================================  =================================

To fail after a statement of SQLite is to fail before its rows are fetched. Of the replies to one write of commands
the first and the last are points, since those between are read in the same loop.

What nothing can make fail is only killed at: Python's sqlite3 gives no error of a close. Rings are put by whoever
adds or retries, as where threads are greenlets, so a put is a call like the others.
"""

import socket
import sqlite3
from collections.abc import Callable
from typing import Any

import bson
import pytest
from pymongo.synchronous import pool

from kqueue.brokers.beanstalk.stream import Stream, dial
from tests.steps.tap import Tap

#: Characters of a statement that tell it from others.
STATEMENT_CHARS = 60
LINE_END = b"\r\n"
#: What the driver says by itself on a new connection is part of the command that needs it.
HANDSHAKE = {"mongo: hello", "mongo: ismaster"}
#: MongoDB's OP_MSG: header, flags and the kind of the first section, then the command.
#: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
OP_MSG, OP_MSG_START = 2013, 21


def install(tap: Tap, patch: pytest.MonkeyPatch) -> None:
    """Lay every edge on ``tap``, until ``patch`` is undone."""
    for name in ("file.connect", "backup"):
        patch.setattr(f"kqueue.stores.sqlite.{name}.sqlite3", _Module(sqlite3, connect=_sqlite_connect(tap)))
    patch.setattr("kqueue.brokers.beanstalk.connection.dial", _dial(tap))
    patch.setattr("kqueue.brokers.beanstalk.connection.Stream", _stream(tap))
    # Whoever rings puts: what a thread beside him puts together is another thing in each run.
    patch.setattr("kqueue.dispatch.ringing.are_greenlets", lambda: True)
    _tap_mongo(tap, patch)


class _Module:
    """A module with some of its names replaced."""

    def __init__(self, module: object, **replaced: object) -> None:
        self._module = module
        vars(self).update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


# -- SQLite ----------------------------------------------------------------------------------------------


def _sqlite_connect(tap: Tap) -> Callable[..., sqlite3.Connection]:
    class Cursor(sqlite3.Cursor):
        def run(self, text: str, effect: Callable[[], Any]) -> Any:
            return tap.step(f"sqlite: {' '.join(text.split())[:STATEMENT_CHARS]}", effect, self._disk_error)

        def _disk_error(self) -> Exception:
            self.close()  # an error ends a statement, and lets go of what it has locked
            return _disk_error()

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> Any:
            cursor = self.cursor(Cursor)
            return cursor.run(statement, lambda: cursor.execute(statement, *values))

        def executemany(self, statement: str, values: Any) -> Any:
            cursor = self.cursor(Cursor)
            return cursor.run(statement, lambda: cursor.executemany(statement, values))

        def backup(self, *given: Any, **options: Any) -> None:
            tap.step("sqlite: backup", lambda: super(Connection, self).backup(*given, **options), _disk_error)

        def close(self) -> None:
            tap.step("sqlite: close", super().close, _disk_error)

    def connect(*given: Any, **options: Any) -> sqlite3.Connection:
        return tap.step(
            "sqlite: connect", lambda: sqlite3.connect(*given, factory=Connection, **options), _disk_error
        )

    return connect


def _disk_error() -> Exception:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return error


# -- beanstalkd ------------------------------------------------------------------------------------------


def _dial(tap: Tap) -> Callable[..., socket.socket]:
    return lambda *given: tap.step("tube: connect", lambda: dial(*given), _reset)


def _stream(tap: Tap) -> type[Stream]:
    class Tapped(Stream):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self._asked: list[tuple[str, bool]] = []
            self._reply, self._is_point = "", True

        def send(self, data: bytes) -> None:
            words = _commands(data)
            ends = {0, len(words) - 1}
            self._asked += [(word, at in ends) for at, word in enumerate(words)]
            tap.step(f"tube: {', '.join(dict.fromkeys(words))}", lambda: super(Tapped, self).send(data), _reset)

        def line(self) -> bytes:
            self._reply, self._is_point = self._asked.pop(0)
            return self._step("first line", super().line)

        def exactly(self, size: int) -> bytes:
            return self._step("body" if size > len(LINE_END) else "end", lambda: super(Tapped, self).exactly(size))

        def _step(self, part: str, effect: Callable[[], bytes]) -> bytes:
            return (
                tap.step(f"tube: {part} of reply to {self._reply}", effect, _reset) if self._is_point else effect()
            )

    return Tapped


def _commands(data: bytes) -> list[str]:
    """The first word of each command. What follows a put is its body."""
    words, lines = [], iter(data.split(LINE_END)[:-1])
    for line in lines:
        word, *values = line.split()
        waits = word == b"reserve-with-timeout" and values != [b"0"]
        words.append("waiting reserve" if waits else word.decode())
        if word == b"put":
            next(lines)
    return words


def _reset() -> Exception:
    return ConnectionResetError("the connection was reset")


# -- MongoDB ---------------------------------------------------------------------------------------------


def _tap_mongo(tap: Tap, patch: pytest.MonkeyPatch) -> None:
    """Below the driver's own retries, so that they are seen too: each of its sendings is a call."""
    send, receive = pool.Connection.send_message, pool.Connection.receive_message
    replies: dict[int, Any] = {}

    def send_and_receive(connection: Any, message: bytes, size: int) -> None:
        command = _mongo_command(message)
        if not tap.hears() or command in HANDSHAKE:
            send(connection, message, size)
            return

        def effect() -> None:
            send(connection, message, size)
            replies[id(connection)] = receive(connection, int.from_bytes(message[4:8], "little"))

        def fail() -> BaseException:
            replies.pop(id(connection), None)
            # Makes the driver's own error of it. A reset would have it look for its server again, and that is slow.
            return _raised_by(lambda: connection._raise_connection_failure(TimeoutError("timed out")))

        tap.step(command, effect, fail)

    def received(connection: Any, request: int | None) -> Any:
        reply = replies.pop(id(connection), None)
        return receive(connection, request) if reply is None else reply

    patch.setattr(pool.Connection, "send_message", send_and_receive)
    patch.setattr(pool.Connection, "receive_message", received)


def _raised_by(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def _mongo_command(message: bytes) -> str:
    if int.from_bytes(message[12:16], "little") != OP_MSG:
        return "mongo: hello"
    length = int.from_bytes(message[OP_MSG_START : OP_MSG_START + 4], "little")
    command = bson.decode(message[OP_MSG_START : OP_MSG_START + length])
    name, value = next(iter(command.items()))
    where = " ".join(["", "by", *command["filter"]]) if command.get("filter") else ""
    if name == "hello" and "client" not in command:
        return "mongo: hello, for its time"
    return f"mongo: {name} {value}{where}" if isinstance(value, str) else f"mongo: {name}"
