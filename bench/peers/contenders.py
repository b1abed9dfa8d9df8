"""Who is measured: each peer with its server, and what a crash may cost with it."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench import queues
from bench.peers.servers import Postgres, Redis, postgres_folder, redis_path

#: A commit, or a reply of the server, comes after the disk has it.
DURABLE = "durable at power loss"
A_SECOND = "power loss may cost a second"
ANY = "power loss may cost the file"

#: The peers that run on a Redis, by the name of their module.
ON_REDIS = {"rq": "RQ", "celery": "Celery", "dramatiq": "Dramatiq", "huey": "Huey", "saq": "SAQ"}


@dataclass(frozen=True)
class Contender:
    """One row of the tables."""

    name: str
    #: ``bench.peers.<module>_peer``.
    module: str
    #: The interpreter of its environment.
    python: Path
    #: Its server's address; ``{folder}`` stands for a folder that is new for each round.
    url: str
    durability: str
    redis: Redis | None = None
    #: An address by which adding waits for no disk, if its own one does not serve for that.
    unsynced_url: str | None = None
    #: What its jobs run in, where that is chosen: ``threads``, say.
    kind: str = ""

    @property
    def is_ours(self) -> bool:
        return self.module == "kqueue"

    @property
    def is_emptied(self) -> bool:
        """Whether the next round begins with nothing, whatever this one leaves."""
        return self.redis is not None or self.url.startswith("sqlite")

    def empty(self) -> None:
        """Forget what an earlier round, of any peer, has left."""
        if self.redis is not None:
            self.redis.empty()

    @contextmanager
    def unsynced(self) -> Iterator[str]:
        """Meanwhile jobs are added at this address without waiting for a disk, where that can be."""
        with self.redis.unsynced() if self.redis is not None else nullcontext():
            yield self.unsynced_url or self.url


@contextmanager
def contenders(peers: Path, mongodb: str | None) -> Iterator[tuple[list[Contender], list[str]]]:
    """All that this machine has servers for, running; and sentences that say what it has not.

    ``peers``: the interpreter of their environment. ``mongodb``: the URL of one that runs, or None.
    """
    missing: list[str] = []
    with ExitStack() as stack:
        found = [*_ours(stack, mongodb)]
        if mongodb is None:
            missing.append("mongod is not installed, so there are no figures of KQueue on MongoDB.")
        if redis_path() is None:
            missing.append(
                "redis-server is not installed, so there are no figures of RQ, Celery, Dramatiq and SAQ."
            )
        else:
            found += _on_redis(stack, peers)
        for fsync, durability in ((1, DURABLE), (0, ANY)):
            url, unsynced = (f"sqlite:{{folder}}/huey.db?fsync={one}" for one in (fsync, 0))
            name = f"Huey, SQLite fsync={bool(fsync)}"
            found.append(Contender(name, "huey", peers, url, durability, unsynced_url=unsynced))
        if postgres_folder() is None:
            missing.append("PostgreSQL is not installed, so there are no figures of Procrastinate.")
        else:
            postgres = Postgres()
            stack.callback(postgres.stop)
            found.append(Contender("Procrastinate, PostgreSQL", "procrastinate", peers, postgres.url, DURABLE))
        yield found, missing


def _ours(stack: ExitStack, mongodb: str | None) -> Iterator[Contender]:
    python = Path(sys.executable)
    broker = stack.enter_context(queues.beanstalkd()).url
    store = "sqlite:///{folder}/jobs.db"
    for name, tube in (("SQLite FULL + beanstalkd -b", f"|{broker}"), ("SQLite FULL", "")):
        unsynced = f"{store}?synchronous=OFF{tube}"
        yield Contender(f"KQueue, {name}", "kqueue", python, store + tube, DURABLE, unsynced_url=unsynced)
    if mongodb is not None:
        yield Contender("KQueue, MongoDB j + beanstalkd -b", "kqueue", python, f"{mongodb}|{broker}", DURABLE)


def _on_redis(stack: ExitStack, python: Path) -> Iterator[Contender]:
    for appendfsync, durability in (("always", DURABLE), ("everysec", A_SECOND)):
        redis = Redis(appendfsync)
        stack.callback(redis.stop)
        for module, name in ON_REDIS.items():
            yield Contender(f"{name}, Redis {appendfsync}", module, python, redis.url, durability, redis)
