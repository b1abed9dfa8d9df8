"""``python -m kqueue`` without the start of a Python, which costs more than most commands: of a test that is about
what a command does, not about how it starts.

A process that has imported all commands forks for each. The child runs, and ends, as a Python does that was started
for it.

python tests/warm.py DESCRIPTOR    (a socket: see :class:`WarmPython`)
"""

import atexit
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

#: Bytes of a request at most.
MOST = 200_000
#: What only the start of a Python reads.
AT_START = ("PYTHON", "LC_", "LANG")


class WarmPython:
    """Runs commands one at a time."""

    def __init__(self) -> None:
        without = {"PYTHONPATH", "PYTHONUNBUFFERED"}
        self.environment = {name: value for name, value in os.environ.items() if name not in without}
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=self.environment
            )
        atexit.register(self._close)

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether a Python that was started with ``environment`` would be like this one."""
        names = {name for name in {*environment, *self.environment} if name.startswith(AT_START)}
        return all(environment.get(name) == self.environment.get(name) for name in names)

    def kqueue(
        self, args: Sequence[str], folder: Path, environment: Mapping[str, str], text: str | None, timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        """In ``folder``, with ``text`` as its input or none."""
        with (
            tempfile.TemporaryFile() if text is not None else Path(os.devnull).open("rb") as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            if text is not None:
                given.write(text.encode())
                given.seek(0)
            request = json.dumps([list(args), str(folder), dict(environment)]).encode()
            socket.send_fds(self._link, [request], [given.fileno(), out.fileno(), err.fileno()])
            self._link.settimeout(timeout)
            status = int(self._link.recv(MOST))
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(args, status, out.read().decode(), err.read().decode())

    def _close(self) -> None:
        self._link.close()
        self._process.wait()


@cache
def warm_python() -> WarmPython:
    """The one of this process."""
    return WarmPython()


def _import_all() -> None:
    """What any command may import. That each imports what it needs is seen where real ones are started."""
    for command in import_module("kqueue.cli.main").COMMANDS.values():
        import_module(f"kqueue.cli.{command.partition(':')[0]}")
    for name in ("stores.sqlite.store", "brokers.beanstalk.broker", "brokers.embedded", "assembly"):
        import_module(f"kqueue.{name}")
    gc.freeze()


def _serve(link: socket.socket) -> list[str]:
    """Returns in each child, with the arguments of its command; ends the process once nobody asks any more."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(link, MOST, 3)
        if not request:
            sys.exit(0)
        child = os.fork()
        if child == 0:
            link.close()
            args, folder, environment = json.loads(request)
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
            os.closerange(3, max(descriptors) + 1)
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(folder)
            sys.path[0] = folder
            return list(args)
        for descriptor in descriptors:
            os.close(descriptor)
        link.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


if __name__ == "__main__":
    _import_all()
    sys.argv[1:] = _serve(socket.socket(fileno=int(sys.argv[1])))
    import_module("kqueue.cli.main").main()
