"""MongoDB's clients are closed by the last that uses them."""

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
