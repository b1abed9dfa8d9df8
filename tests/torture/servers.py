"""The servers of a torture, and the folder that everything lies in. All of it is gone after ``stop``."""

import shutil
import tempfile
from pathlib import Path

from tests.beanstalkd import Beanstalkd
from tests.mongod import Mongod
from tests.torture.clocks import StepClock


class Servers:
    """A beanstalkd, and a mongod where the store is one."""

    def __init__(self, store: str, binlog: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="torture-"))
        self.clock = StepClock(self.folder / "clock")
        #: Of a SQLite store, in a folder of its own.
        self.store_file = self.folder / "store" / "jobs.db"
        self.store_file.parent.mkdir()
        self.beanstalkd: Beanstalkd | None = None
        self.mongod: Mongod | None = None
        try:
            self.beanstalkd = Beanstalkd(binlog=binlog)
            if store == "mongodb":
                self.mongod = Mongod()
        except BaseException:
            self.stop()
            raise

    @property
    def store_url(self) -> str:
        return self.mongod.url("torture") if self.mongod else f"sqlite:///{self.store_file}"

    @property
    def is_a_file(self) -> bool:
        """Whether the store is one, and goes by the clock of this host."""
        return self.store_url.startswith("sqlite:")

    @property
    def broker_url(self) -> str:
        assert self.beanstalkd is not None
        return self.beanstalkd.url

    def stop(self) -> None:
        """Idempotent."""
        for server in (self.beanstalkd, self.mongod):
            if server is not None:
                server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
