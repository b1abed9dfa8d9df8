"""A replica set of three genuine mongods on this machine, and what may befall it."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from tests.mongod import Mongod

MEMBERS = 3
#: Seconds after which a set without a primary counts as broken.
PATIENCE_S = 240.0
#: Milliseconds without a heartbeat after which another member wants to be the primary; ten seconds by default.
ELECTION_MS = 3_000


class ReplicaSet:
    """Three members, of which one is the primary."""

    def __init__(self, shifts: Sequence[float | None] = (None,) * MEMBERS) -> None:
        """``shifts``: by how many seconds each member's clock is ahead."""
        self.members: list[Mongod] = []
        try:
            with ThreadPoolExecutor(MEMBERS) as pool:
                started = [pool.submit(Mongod, alone=False, shift=shift) for shift in shifts]
            self.members += [one.result() for one in started if one.exception() is None]
            for one in started:
                one.result()
            self._initiate()
            self.primary()
        except BaseException:
            self.stop()
            raise

    def url(self, database: str, options: str = "") -> str:
        hosts = ",".join(member.host for member in self.members)
        return f"mongodb://{hosts}/{database}?replicaSet=rs0{options}"

    def client(self, **options: Any) -> MongoClient[dict[str, Any]]:
        """A plain client: to look at the set behind KQueue's back."""
        return MongoClient([member.host for member in self.members], replicaSet="rs0", **options)

    def primary(self) -> Mongod:
        """The member that is the primary with a majority behind it, as soon as there is one."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for member in self.members:
                if _has_majority(member):
                    return member
            time.sleep(0.1)
        raise RuntimeError("the replica set has no primary")

    def kill_primary(self) -> Mongod:
        """SIGKILL to the primary, which is returned: it is to be restarted."""
        member = self.primary()
        member.kill()
        return member

    def step_down(self) -> None:
        """Another becomes the primary, or the same once more."""
        self.primary().step_down()

    def move_to(self, member: Mongod) -> None:
        """Make ``member`` the primary."""
        deadline = time.monotonic() + PATIENCE_S
        while (primary := self.primary()) is not member:
            with primary.client() as client:
                config = client.admin.command("replSetGetConfig")["config"]
                for one in config["members"]:
                    one["priority"] = 2 if one["host"] == member.host else 1
                config["version"] += 1
                try:
                    client.admin.command("replSetReconfig", config)
                    with member.client() as chosen:
                        chosen.admin.command("replSetStepUp")
                except PyMongoError:
                    if time.monotonic() > deadline:
                        raise
            time.sleep(0.1)

    @contextmanager
    def cut_off(self, members: list[Mongod]) -> Iterator[None]:
        """Nobody hears of these, nor they of anybody."""
        for member in members:
            member.freeze()
        try:
            yield
        finally:
            for member in members:
                member.thaw()

    def secondaries(self) -> list[Mongod]:
        primary = self.primary()
        return [member for member in self.members if member is not primary]

    def stop(self) -> None:
        """End all and remove their data. Idempotent."""
        for member in self.members:
            member.stop()

    def _initiate(self) -> None:
        members = [{"_id": at, "host": member.host} for at, member in enumerate(self.members)]
        settings = {"electionTimeoutMillis": ELECTION_MS, "heartbeatIntervalMillis": 500}
        with self.members[0].client() as client:
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": members, "settings": settings})


def _has_majority(member: Mongod) -> bool:
    """Whether it is the primary, and a majority has what it writes."""
    with member.client(serverSelectionTimeoutMS=200, socketTimeoutMS=4000, connectTimeoutMS=1000) as client:
        try:
            if not client.admin.command("hello")["isWritablePrimary"]:
                return False
            concern = {"w": "majority", "wtimeout": 2000}
            client.admin.command("appendOplogNote", data={"what": "a look"}, writeConcern=concern)
        except (PyMongoError, OperationFailure):
            return False
    return True
