"""MongoDB's clients are closed by the last that uses them."""

import threading

import pytest

from kqueue.stores.mongo.store import MongoStore


def test_a_client_is_closed_by_the_last_that_uses_it(mongod, mongo_database):
    """And not before: its commands come to their end. None is left open."""
    store = MongoStore(mongod.url(mongo_database))
    link = store._links.get()
    with link.use() as database:
        store.close()
        with pytest.raises(StopIteration), link.use() as another:
            assert another is not database
            next(iter(()))
        assert database.command("ping")["ok"] == 1
        client = database.client
    store.close()
    with pytest.raises(Exception, match="after close"):
        client.admin.command("ping")


def test_no_thread_of_the_driver_tells_of_changes_since_a_close_would_wait_for_it(mongod, mongo_database):
    """It looks twice a second whether it is to end: each command of a user's would take so much longer."""
    store = MongoStore(mongod.url(mongo_database))
    store.open()
    names = {thread.name for thread in threading.enumerate()}
    store.close()
    assert any("server_monitor" in name for name in names)
    assert not any("events" in name for name in names)
