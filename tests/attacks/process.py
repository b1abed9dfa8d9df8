"""A process that uses stores of its own, and does to their files what a user's code in it may do.

It reads a command a line and answers each with a line: ``["add", queue, jobs]`` and so on, and what came of it.
Commands name a queue by its place among the URLs, with which ``python -m tests.attacks.process URL...`` starts one.
"""

import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from kqueue import AddFailed, JobInHand, KQueue, KQueueError


class Process:
    """Its commands."""

    def __init__(self, urls: list[str]) -> None:
        self.queues = [KQueue(url, max_tries=1000, retry_delay=0) for url in urls]

    def add(self, number: int, jobs: int) -> dict[str, Any]:
        """``jobs`` of them, one by one, until one is not taken."""
        said: dict[str, Any] = {"taken": [], "not_taken": [], "unknown": [], "error": None}
        try:
            for _ in range(jobs):
                said["taken"].append(self.queues[number].add_job("noop", {"filling": "x" * 200}))
        except AddFailed as error:
            for name in ("taken", "not_taken", "unknown"):
                said[name] += getattr(error, name)
            said["error"] = str(error)
        except KQueueError as error:
            said["error"] = str(error)
        return said

    def counts(self, number: int) -> str | dict[str, int]:
        """Or the error."""
        try:
            return self.queues[number].counts()
        except KQueueError as error:
            return str(error)

    def copy(self, path: str) -> None:
        """As a backup written in Python does it."""
        with tempfile.TemporaryDirectory() as folder, suppress(OSError):  # it may be away
            shutil.copy(path, folder)

    def copytree(self, path: str) -> None:
        """All beside it too."""
        with tempfile.TemporaryDirectory() as folder, suppress(OSError):  # as may a part of it
            shutil.copytree(Path(path).parent, Path(folder, "copy"))

    def close(self, number: int) -> None:
        """A later command opens it again."""
        self.queues[number].close()

    def work(self, number: int, jobs: int, what: str, path: str) -> int:
        """Run so many, each of which does ``what`` to ``path``; how many."""

        def handle(job: JobInHand) -> None:
            if what:
                getattr(self, what)(path)
            job.delete()

        self.queues[number].remove_handler("noop")
        self.queues[number].add_handler("noop", handle)
        return self.queues[number].run_jobs(count_limit=jobs, wait=True).deleted

    def fork(self, number: int, jobs: int, path: str) -> dict[str, Any]:
        """Add in a child, while threads of the parent copy the file; what the child says."""
        stopping = threading.Event()

        def copy() -> None:
            while not stopping.wait(0.001):
                self.copy(path)

        threads = [threading.Thread(target=copy) for _ in range(2)]
        for thread in threads:
            thread.start()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            said = self.add(number, jobs)
            os.write(writer, json.dumps(said).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            answer: dict[str, Any] = json.loads(pipe.read())
        os.waitpid(child, 0)
        stopping.set()
        for thread in threads:
            thread.join()
        return answer


def serve(urls: list[str], commands: TextIO, answers: TextIO) -> None:
    """Until there are no more commands."""
    process = Process(urls)
    for line in commands:
        name, *values = json.loads(line)
        method: Callable[..., Any] = getattr(process, name)
        print(json.dumps(method(*values)), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1:], sys.stdin, sys.stdout)
