"""A MongoDB whose user may only read: looked at as any other, and never written."""

from collections.abc import Callable

import pytest

from kqueue import KQueue, StoreError, StoreReadOnly
from tests.mongod import Mongod


def test_a_user_with_the_role_read_looks_and_is_refused_what_writes(start_mongod: Callable[..., Mongod]) -> None:
    server = start_mongod()
    with KQueue(server.url("app"), prefix="shop") as queue:
        job_id = queue.add_job("greet", "Ann")
        tubes = queue.prefix
    with server.client() as client:
        # As an older version left it, before a member was known by its set: what is written at an open.
        client.app.kqueue_meta.update_one({"_id": "identity"}, {"$set": {"bound_to.set_id": None}})
        client.app.kqueue_meta.delete_one({"_id": "primary"})
        client.app.command("createUser", "reader", pwd="secret", roles=["read"])
        client.other.command("createUser", "reader", pwd="secret", roles=["read"])
        client.app.command("createUser", "nobody", pwd="secret", roles=[])
    server.ask_for_users()

    def url(user: str, database: str = "app") -> str:
        return server.url(database).replace("://", f"://{user}:secret@")

    with KQueue(url("reader")) as queue:
        assert queue.prefix == tubes
        assert queue.counts()["ready"] == 1
        job = queue.get_job(job_id)
        assert job is not None
        assert job.payload == "Ann"
        assert [job.id for job in queue.jobs(state="ready")] == [job_id]
        assert [answer.cause for answer in queue.why(job_id)] == ["no worker"]
        assert [symptom.about for symptom in queue.checkup()] == ["workers"]
        assert (queue.workers(), queue.paused(), [*queue.findings()]) == ([], {}, [])
        for write in (
            lambda: queue.add_job("greet"),
            lambda: queue.add_job("greet", unique="once"),
            queue.sweep,
            lambda: queue.pause("greet"),
            lambda: queue.delete_job(job_id),
            lambda: queue.purge_jobs("greet"),
        ):
            with pytest.raises(StoreError, match="this user may only read it, and nothing was changed"):
                write()
    with pytest.raises(StoreReadOnly, match="this user may only read it"):
        KQueue(url("reader", "other")).open()  # a store that would have to be made
    with pytest.raises(StoreError, match="check the user, its rights"):
        KQueue(url("nobody")).open()
