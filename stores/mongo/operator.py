"""What an operator does to the rows of a MongoDB: change, delete, purge."""

from collections.abc import Sequence

from pymongo import DeleteOne, ReturnDocument
from pymongo.collection import Collection

from kqueue.contracts.operator import JobChange
from kqueue.contracts.repair import Due
from kqueue.model.job import State
from kqueue.stores.mongo import commands, schema
from kqueue.stores.mongo import keys_and_workers as notes
from kqueue.stores.mongo.access import read, write
from kqueue.stores.mongo.schema import Document


def change(
    jobs: Collection[Document], id: str, change: JobChange, now: float, *, put_at: float | None, put_until: float
) -> Due | None:
    """The row as it is then; None if it does not wait. One command: the driver sends it once more if its reply is
    lost, and the server does it once.
    """
    waits = {"_id": id, "state": {"$in": [commands.DELAYED, commands.READY, commands.HELD]}}
    changes = commands.change(change, now, put_at, put_until)
    found = jobs.find_one_and_update(waits, changes, commands.DUE, return_document=ReturnDocument.AFTER)
    return None if found is None else commands.to_due(found)


def delete(jobs: Collection[Document], ids: Sequence[str]) -> int:
    """How many there were. Rows with a unique key, and those that are gone, cost two commands more."""
    plain = [DeleteOne({"_id": id, "unique_key": None}) for id in ids]
    deleted = jobs.bulk_write(plain, ordered=False).deleted_count
    if deleted < len(ids):
        deleted += jobs.bulk_write([DeleteOne({"_id": id}) for id in ids], ordered=False).deleted_count
        notes.free_keys(jobs.database, ids)
    return deleted


def purge(jobs: Collection[Document], type: str, most: int) -> int:
    """How many rows. Others may claim all that was found; 0 must mean that nothing is left."""
    idle = {"$in": [state.value for state in State if state is not State.RUNNING]}
    while found := read(jobs, {"state": idle, "type": type}, {"unique_key": True}, most, index=schema.ORDER):
        deleted = write(jobs, commands.purges([row["_id"] for row in found])).deleted
        keyed = [row["_id"] for row in found if "unique_key" in row]
        if keyed:
            notes.free_orphans_among(jobs.database, keyed)
        if deleted:
            return deleted
    notes.free_orphans(jobs.database, type)
    return 0
