"""Stores that are copied, as their operators do."""

import shutil
from pathlib import Path
from typing import Any

from kqueue.contracts.store import JobStore
from kqueue.stores.mongo.store import MongoStore
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock


class Files:
    """Stores in files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def store(self, name: str, clock: ManualClock | None = None) -> JobStore:
        return SqliteStore(self.path(name), synchronous="OFF", clock=clock)

    def path(self, name: str) -> Path:
        return self._folder / f"{name}.db"

    def copy(self, name: str, to: str) -> None:
        """Of a store that nobody has open."""
        shutil.copy(self.path(name), self.path(to))

    def replace(self, name: str, by: str) -> None:
        """As an operator does it: what belonged to the old file goes with it."""
        for suffix in ("-wal", "-shm", ""):
            if (old := Path(f"{self.path(name)}{suffix}")).exists():
                old.rename(self._folder / f"old.db{suffix}")
        for suffix in ("", "-wal", "-shm"):
            if (new := Path(f"{self.path(by)}{suffix}")).exists():
                new.rename(f"{self.path(name)}{suffix}")


class Databases:
    """Stores in databases of one server."""

    def __init__(self, server: Any, name: str) -> None:
        self._server, self._name = server, name

    def store(self, name: str, clock: ManualClock | None = None) -> JobStore:
        return MongoStore(self._server.url(f"{self._name}_{name}"), clock=clock)

    def copy(self, name: str, to: str) -> None:
        with self._server.client() as client:
            source, target = client[f"{self._name}_{name}"], client[f"{self._name}_{to}"]
            for collection in source.list_collection_names():
                if documents := list(source[collection].find()):
                    target[collection].insert_many(documents)

    def replace(self, name: str, by: str) -> None:
        """As one that was restored into its place, all at once."""
        with self._server.client() as client:
            theirs = client[f"{self._name}_{by}"]["kqueue_meta"].find_one({"_id": "identity"})
            ours = {**theirs["bound_to"], "database": f"{self._name}_{name}"}
            client[f"{self._name}_{name}"]["kqueue_meta"].replace_one(
                {"_id": "identity"}, {**theirs, "bound_to": ours}
            )

    def drop(self) -> None:
        with self._server.client() as client:
            for name in client.list_database_names():
                if name.startswith(self._name):
                    client.drop_database(name)
