"""Empties a tube."""

from kqueue.brokers.beanstalk import wire
from kqueue.brokers.beanstalk.connection import Connection

#: Entries that a drain takes at once. Deletes get slower with the number reserved on the connection.
DRAIN_ENTRIES = 200


def drain(connection: Connection, tube: str) -> int:
    """Delete all that is not reserved, by a connection of its own; how many. A paused tube is resumed, and stays
    so.
    """
    deleted = 0
    connection.exchange([*wire.watch_only([tube]), wire.use(tube)])
    kicked = False
    while True:
        count = _delete_ready(connection, tube)
        deleted += count
        # On a full disk the server says KICKED, and kicks nothing that it has to write to its binlog.
        if kicked and not count:
            return deleted
        kicked = not count
        if kicked:
            # The first kick takes the buried, the second the delayed.
            replies = connection.exchange([wire.kick(DRAIN_ENTRIES)] * 2)
            if not any(reply.values[0] for reply in replies):
                return deleted


def _delete_ready(connection: Connection, tube: str) -> int:
    commands = [wire.resume(tube)] + [wire.reserve(0)] * DRAIN_ENTRIES
    reserved = [reply for reply in connection.exchange(commands) if reply.status == b"RESERVED"]
    deleted = connection.exchange([wire.delete(reply.values[0]) for reply in reserved])
    return sum(reply.status == b"DELETED" for reply in deleted)
