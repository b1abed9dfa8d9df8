"""The servers of a torture, and the folder that everything lies in. All of it is gone after ``stop``."""

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from tests.beanstalkd import Beanstalkd
from tests.mongod import Mongod
from tests.replica_set import ReplicaSet
from tests.stores.stray_payloads import stray_payloads
from tests.torture.clocks import StepClock

#: What a torture may have as its store.
STORES = ("sqlite", "mongodb", "mongodb-set")


class Servers:
    """A beanstalkd; and a mongod, or a replica set of three, where the store is one."""

    def __init__(self, store: str, binlog: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="torture-"))
        self.clock = StepClock(self.folder / "clock")
        #: Of a SQLite store, in a folder of its own.
        self.store_file = self.folder / "store" / "jobs.db"
        self.store_file.parent.mkdir()
        self.beanstalkd: Beanstalkd | None = None
        self.mongod: Mongod | None = None
        self.members: ReplicaSet | None = None
        try:
            self.beanstalkd = Beanstalkd(binlog=binlog)
            if store == "mongodb":
                self.mongod = Mongod()
            elif store == "mongodb-set":
                self.members = ReplicaSet()
        except BaseException:
            self.stop()
            raise

    @property
    def store_url(self) -> str:
        mongodb = self.mongod or self.members
        return mongodb.url("torture") if mongodb else f"sqlite:///{self.store_file}"

    @property
    def is_a_file(self) -> bool:
        """Whether the store is one, and goes by the clock of this host."""
        return self.store_url.startswith("sqlite:")

    @property
    def broker_url(self) -> str:
        assert self.beanstalkd is not None
        return self.beanstalkd.url

    def stray_payloads(self) -> int:
        """Payloads without their job, and jobs without their payload, in a file."""
        if not self.is_a_file:
            return 0
        with closing(sqlite3.connect(self.store_file)) as connection:
            return len(stray_payloads(connection))

    def stop(self) -> None:
        """Idempotent."""
        for server in (self.beanstalkd, self.mongod, self.members):
            if server is not None:
                server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
