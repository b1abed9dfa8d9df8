"""The producers and workers of a torture."""

import sys
import time
from pathlib import Path
from random import Random

from tests.torture.child import Child
from tests.torture.ledger import SUFFIX
from tests.torture.servers import Servers

PRODUCERS = 2
WORKERS = 3
#: Seconds in which all of them begin, on a busy machine.
START_S = 240.0


class Crowd:
    """Real processes. One that is killed is replaced by a new one, with a ledger of its own."""

    def __init__(self, servers: Servers, seed: int) -> None:
        self.ledgers = servers.folder / "ledgers"
        self.ledgers.mkdir()
        self.fallen = 0
        self._servers = servers
        self._seed = seed
        self._started = 0
        self.producers = [self._producer() for _ in range(PRODUCERS)]
        self.workers = [self._worker() for _ in range(WORKERS)]

    def await_ready(self) -> None:
        """Until all have begun."""
        until = time.monotonic() + START_S
        while not all(child.is_ready() for child in [*self.producers, *self.workers]):
            if time.monotonic() > until:
                raise TimeoutError("the processes of the torture do not begin")
            time.sleep(0.05)

    def kill_producer(self, random: Random) -> None:
        at = random.randrange(PRODUCERS)
        self.producers[at].kill()
        self.producers[at] = self._producer()

    def replace(self, worker: Child) -> None:
        """Kill it, and start another in its place."""
        worker.kill()
        self.workers[self.workers.index(worker)] = self._worker()

    def stranger(self, store_url: str) -> Child:
        """A producer that knows the store by another URL."""
        return self._producer(store_url)

    def look(self) -> None:
        """Count and replace those that have ended though nobody told them to."""
        for children, start in ((self.producers, self._producer), (self.workers, self._worker)):
            for at, child in enumerate(children):
                if child.has_ended():
                    self._fell(child, "ended by itself")
                    child.kill()
                    children[at] = start()

    def end(self, children: list[Child]) -> None:
        """Ask them to end, and wait."""
        for child in children:
            if not child.end():
                self._fell(child, "did not end cleanly")
        children.clear()

    def kill(self) -> None:
        """End everything at once."""
        for child in [*self.producers, *self.workers]:
            child.kill()

    def _fell(self, child: Child, how: str) -> None:
        self.fallen += 1
        print(f"process {child.pid} {how}:\n{child.log.read_text(errors='replace')[-3000:]}", file=sys.stderr)

    def _producer(self, store_url: str | None = None) -> Child:
        name = self._name("producer")
        return self._start("tests.torture.producer", name, str(self._seed), store_url=store_url)

    def _worker(self) -> Child:
        name = self._name("worker")
        # Some have two loops, so that suspects are taken aside, and some a dispatcher of three threads.
        loops, threads = (("2", "1"), ("1", "3"), ("1", "1"))[self._started % 3]
        return self._start("tests.torture.worker", name, loops, threads)

    def _name(self, kind: str) -> str:
        self._started += 1
        return f"{kind}-{self._started}"

    def _start(self, module: str, name: str, *last: str, store_url: str | None = None) -> Child:
        servers = self._servers
        log = Path(servers.folder, f"{name}.log")
        arguments = [
            store_url or servers.store_url,
            servers.broker_url,
            str(self.ledgers),
            name,
            str(servers.clock.path),
            *last,
        ]
        ledger = self.ledgers / (name + SUFFIX)
        return Child(module, arguments, log, ledger)
