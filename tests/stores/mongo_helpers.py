"""Rows, and what is between a store and its MongoDB: commands that are seen, replies that are lost."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pymongo.monitoring import CommandListener

from kqueue.contracts.budget import Budget
from kqueue.model.job import Row, State
from kqueue.system.mint import IdMint
from tests.mongod import Mongod

NOW = 1_700_000_000.0

TTR = 30.0

mint = IdMint()


def new_rows(count: int, **fields: Any) -> list[Row]:
    plain = {"type": "t", "payload": b"1", "encoding": "json", "priority": 10, "state": State.READY}
    plain |= {"delay": 0.0, "run_at": NOW, "ttr": TTR, "created_at": NOW, "put_at": NOW}
    return [Row(id=id, **(plain | fields)) for id in mint.make(count)]


def window(jobs: int = 1000, types: Sequence[str] = ("t",)) -> Budget:
    """So many jobs, if their payloads allow; they are expected to take no time."""
    return Budget(jobs=jobs, job_s=dict.fromkeys(types, 0.0))


def ids_of(rows: list[Row]) -> tuple[str, ...]:
    return tuple(row.id for row in rows)


class Commands(CommandListener):
    """Every command that a client sends, but for those of its own housekeeping."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        #: By a command's name: what is to happen, once, before it is sent.
        self.before: dict[str, Callable[[], object]] = {}

    def started(self, event: Any) -> None:
        self.before.pop(event.command_name, lambda: None)()
        if event.command_name not in ("endSessions", "createIndexes"):
            self.sent.append({event.command_name: event.command[event.command_name], **event.command})

    def succeeded(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...

    def names(self) -> list[str]:
        names = [next(iter(command)) for command in self.sent]
        self.sent.clear()
        return names


#: What a plan may be made of: no COLLSCAN, no SORT.
USING_INDEX = {
    *("IXSCAN", "DISTINCT_SCAN", "FETCH", "LIMIT", "SORT_MERGE", "OR", "GROUP"),
    *("PROJECTION_SIMPLE", "PROJECTION_COVERED", "PROJECTION_DEFAULT", "UPDATE", "DELETE", "BATCHED_DELETE"),
    *("IDHACK", "UPSERT"),
}


def explain(mongod: Mongod, database: str, command: dict[str, Any]) -> tuple[set[str], int, int]:
    """(stages, index keys and documents that the server says it would read) for a command that was sent."""
    kept = {
        name: value
        for name, value in command.items()
        if not name.startswith("$") and name not in ("lsid", "txnNumber", "writeConcern", "readConcern")
    }
    parts = [kept]
    for writes in ("updates", "deletes"):
        if writes in kept:  # the server explains one at a time
            parts = [kept | {writes: [one]} for one in kept[writes]]
    stages: set[str] = set()
    keys = documents = 0
    with mongod.client() as client:
        for part in parts:
            plan = client[database].command("explain", part, verbosity="executionStats")
            stages |= set(find_all("stage", plan["queryPlanner"]["winningPlan"]))
            keys += plan["executionStats"]["totalKeysExamined"]
            documents += plan["executionStats"]["totalDocsExamined"]
    return {stage for stage in stages if stage.isupper()}, keys, documents


def find_all(name: str, value: object) -> Iterator[str]:
    """Every value of the field ``name`` in a plan, however deep."""
    if isinstance(value, dict):
        if isinstance(value.get(name), str):
            yield value[name]
        for inner in value.values():
            yield from find_all(name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from find_all(name, inner)


class LossyProxy:
    """Stands before a mongod. The server does every command; the replies to some are lost."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lose: list[str] = []
        #: What is to be lost once a command was seen, by its name.
        self._lose_after: dict[str, list[str]] = {}
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, command: str, times: int = 1, *, after: str | None = None) -> None:
        """The replies to the next ``times`` commands of this name are lost, each with its connection; to the next
        ones ``after`` a command of that name.
        """
        (self._lose if after is None else self._lose_after.setdefault(after, [])).extend([command] * times)

    def pass_all(self) -> None:
        """No more are lost."""
        self._lose.clear()
        self._lose_after.clear()

    @property
    def all_lost(self) -> bool:
        return not self._lose

    def close(self) -> None:
        for each in list(self._sockets):
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._sockets += [client, server]
            threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        # A connection carries one request at a time, and an awaited hello may have many replies; so requests
        # are read here, and replies passed on by another thread unless one is to be lost.
        losing = threading.Event()
        threading.Thread(target=self._reply, args=(client, server, losing), daemon=True).start()
        with client, server:
            while message := read_message(client):
                for name in [name for name in self._lose_after if is_command(message, name)]:
                    self._lose += self._lose_after.pop(name)
                lost = next((name for name in self._lose if is_command(message, name)), None)
                if lost is not None:
                    self._lose.remove(lost)
                    losing.set()
                server.sendall(message)

    def _reply(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        try:
            while message := read_message(server):
                if losing.is_set():
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(message)
        except OSError:
            return


def is_command(message: bytes, name: str) -> bool:
    """Whether it has this name: of a string, or of a number, as BSON types them."""
    return any(kind + name.encode() + b"\0" in message[:64] for kind in (b"\x02", b"\x10"))


def read_message(source: socket.socket) -> bytes:
    """One message of MongoDB's wire protocol (its length stands in front); nothing at the end."""
    try:
        head = source.recv(4, socket.MSG_WAITALL)
        return head + source.recv(struct.unpack("<i", head)[0] - 4, socket.MSG_WAITALL) if len(head) == 4 else b""
    except OSError:
        return b""


@contextmanager
def failing(mongod: Mongod, command: str, times: int = 1, **how: Any) -> Iterator[None]:
    """The server itself fails the next ``command``s. https://github.com/mongodb/mongo/wiki/The-failCommand-fail-point"""
    with mongod.client() as client:
        point = {"configureFailPoint": "failCommand"}
        data = {"failCommands": [command], **how}
        client.admin.command(point | {"mode": {"times": times}, "data": data})
        try:
            yield
        finally:
            client.admin.command(point | {"mode": "off"})


#: What the server answers when a write was done here, but no majority has said so in time.
NO_MAJORITY = {"code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out"}
