"""Databases of one server that are taken again: to make collections and indexes anew for each test is most of what
a test on a MongoDB costs.
"""

import secrets
from contextlib import closing
from typing import Any

from pymongo.database import Database

from kqueue.stores.mongo.schema import META
from kqueue.stores.mongo.store import MongoStore
from tests.mongod import Mongod


class MongoDatabases:
    """Of one server. A database that was given back as it was made, but for its documents, is taken again."""

    def __init__(self, mongod: Mongod) -> None:
        self._mongod = mongod
        self._free: list[str] = []
        name = _new_name()
        with closing(MongoStore(mongod.url(name))) as store, mongod.client() as client:
            store.open()
            self._as_made = _made(client[name])
        self.give_back(name)

    def take(self) -> str:
        """The name of one that is empty."""
        return self._free.pop() if self._free else _new_name()

    def give_back(self, name: str) -> None:
        """Nobody uses it any more."""
        with self._mongod.client() as client:
            database = client[name]
            if _made(database) != self._as_made:
                client.drop_database(name)
                return
            for collection in self._as_made[0]:
                database[collection].delete_many({"_id": {"$ne": "schema"}} if collection == META else {})
                database.command("planCacheClear", collection)  # or it plans by what was there before
            self._free.append(name)


def _new_name() -> str:
    return f"test_{secrets.token_hex(6)}"


def _made(database: Database[dict[str, Any]]) -> tuple[dict[str, set[str]], dict[str, Any] | None]:
    """(The names of its indexes by collection; what is noted of its schema.)"""
    indexes = {name: set(database[name].index_information()) for name in database.list_collection_names()}
    return indexes, database[META].find_one({"_id": "schema"})
