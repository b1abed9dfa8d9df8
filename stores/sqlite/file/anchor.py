"""What a process has of each SQLite file beside SQLite itself: one descriptor, and locks that no close takes away.

Theory of operation. Two write-ahead logs on one file lose jobs: who writes on into a log that has no name any more,
or into one that lies beside another name of the file, is read by nobody after him. SQLite guards against it with
POSIX locks, and any ``close`` of the file in the process drops them (a mere copy does). So each inode has one
*anchor* in a process, with locks of :mod:`kqueue.stores.sqlite.file.ofd` on bytes of the file that SQLite leaves
alone:

========================  =========  ===================================================================
bytes                     held       by
========================  =========  ===================================================================
2^62 - 2: the fence       alone      who writes, from before ``BEGIN`` until the last check; a checkpoint
2^62 - 1: opening         alone      who opens, or closes as the last one
2^62 and more: register   shared     each user, at the byte that its log and index give
SQLite's shared range     shared     each user, so that nobody closes as the last one and unlinks the log
of the index: 128         shared     each user, so that nobody takes it for one that was left, and empties it
of it: 2^62 and more      shared     each user, at the byte that the identity of the file gives
========================  =========  ===================================================================

*Register.* Who opens looks there first. If anybody has a byte other than that of the log which lies beside the
path, or any where there is no log, another log is in use, and to open is refused until its users have noticed.

The other way round, in the index: another file than ours that uses our log took our file's name.

*Fence.* A copy of the whole folder drops the locks in the index too, so SQLite itself might let two write at once.

*Nothing is closed.* To close the anchor's descriptor would drop SQLite's POSIX locks in this process, so it is only
unlocked. It is closed once no other descriptor of the file is open here: then there are none to drop.

Where there are no such locks (another system, some file systems) an anchor has no descriptor: what is left are the
checks of the file's place (:mod:`kqueue.stores.sqlite.file.file`).
"""

import os
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import reduce
from typing import Any, Final
from weakref import WeakKeyDictionary

from kqueue.stores.sqlite.file import ofd
from kqueue.stores.sqlite.file.lock import OwnedLock, Taking
from kqueue.stores.sqlite.file.place import Identity, Log, opened_here
from kqueue.system.forks import ForkGuard

FENCE: Final = 2**62 - 2
OPENING: Final = 2**62 - 1
_EXCLUSIVE: Final = (FENCE, 2)
_REGISTER: Final = (2**62, 2**62 - 2)
#: Odd, and large, so that numbers near each other lead to bytes far apart.
_MIX: Final = 0x9E3779B97F4A7C15
#: Where there are locks at all: beyond the register.
_PROBE: Final = 2**63 - 2
#: https://www.sqlite.org/src/file/src/os.h: SHARED_FIRST, SHARED_SIZE.
_SHARED: Final = (0x40000002, 510)
#: https://www.sqlite.org/src/file/src/os_unix.c: UNIX_SHM_DMS.
_DEADMAN: Final = 128
#: In the header, each 2 with write-ahead logging:
#: https://www.sqlite.org/fileformat2.html#file_format_version_numbers
_VERSIONS: Final = (2, 18)
_WITH_LOG: Final = b"\x02\x02"


class Anchor:
    """Of one inode, shared by all that have it open in this process."""

    def __init__(self, identity: Identity, descriptor: int | None) -> None:
        """``descriptor``: None where there are no locks but those of threads."""
        self.identity = identity
        self.descriptor = descriptor
        #: For the fence and the opening: threads of a process share the descriptor, so its locks are no bar to
        #: them.
        self.lock = OwnedLock()
        #: Who has it open, and with which log; None: is about to.
        self.users: WeakKeyDictionary[Any, Log | None] = WeakKeyDictionary()
        #: The log at whose byte this process is registered.
        self.log: Log | None = None
        self.index: int | None = None

    def is_logged(self) -> bool:
        """Whether the file says that it has a write-ahead log."""
        return self.descriptor is not None and os.pread(self.descriptor, *_VERSIONS) == _WITH_LOG

    def has_other_log(self, log: Log | None) -> bool:
        """Whether anybody uses the file with another log than this, the one beside the path; None: there is none,
        or it has no index.
        """
        return self.log not in {None, log} or (self.descriptor is not None and _has_others(self.descriptor, log))

    def is_used_by_others(self) -> bool:
        """Whether another process, or anybody else in this one, has it open."""
        return len(self.users) > 1 or (self.descriptor is not None and _has_others(self.descriptor, None))

    def keep_log(self, seconds: float) -> bool:
        """From now on nobody can close as the last one. False while somebody does, or changes the journal."""
        return self.descriptor is None or ofd.wait_for(
            self.descriptor, _SHARED[0], seconds, _SHARED[1], alone=False
        )

    def register(self, user: object, log: Log, index: int | None) -> None:
        """``index``: a descriptor of the log's index, which is locked too."""
        self.users[user], self.log, self.index = log, log, index
        if self.descriptor is not None:
            ofd.try_lock(self.descriptor, _byte_of(log), alone=False)
        if index is not None:
            ofd.try_lock(index, _byte_of(self.identity), alone=False)
            ofd.try_lock(index, _DEADMAN, alone=False)

    def unlock(self) -> None:
        """All but what a :meth:`hold` has."""
        index, self.index, self.log = self.index, None, None
        if index is not None:
            ofd.unlocker(index, _DEADMAN)()
            ofd.unlocker(index, *_REGISTER)()
        if self.descriptor is not None:
            ofd.unlocker(self.descriptor, *_SHARED)()
            ofd.unlocker(self.descriptor, *_REGISTER)()

    def hold(self, owner: object) -> Taking:
        """To be taken before :meth:`lock_byte`; its release gives back both bytes too."""
        unlock = () if self.descriptor is None else (ofd.unlocker(self.descriptor, *_EXCLUSIVE),)
        return Taking(self.lock, owner, *unlock)

    def lock_byte(self, byte: int, seconds: float) -> bool:
        """Whether the fence, or the opening, was got within ``seconds``."""
        return self.descriptor is None or ofd.wait_for(self.descriptor, byte, seconds)


class Anchors:
    """Those of a process, which may be forked. All is done under the :attr:`gate`, which a fork takes too."""

    def __init__(self) -> None:
        #: Reentrant, and written in C: what a fork calls must not be interrupted
        #: (:mod:`kqueue.stores.sqlite.file.file`).
        self.gate = threading.RLock()
        self._fork = ForkGuard()
        self._anchors: dict[Identity, Anchor] = {}
        self._descriptors: dict[Identity, int] = {}
        #: Paths that this process, or one that it was forked from, has had open: it never makes them again.
        self.known: set[str] = set()

    def join(self, path: str, user: object) -> Anchor:
        """The anchor of the file at ``path``, with ``user`` among its users. Raises ``OSError`` if it cannot be
        opened for reading and writing.
        """
        with self.gate:
            self.forget_inherited()
            if not ofd.SUPPORTED or not os.path.isdir("/proc/self/fd"):
                found = os.stat(path)
                anchor = self._anchor((found.st_dev, found.st_ino), None)
            else:
                identity, descriptor = self._descriptor(path)
                anchor = self._anchor(identity, descriptor)
            for one in self._anchors.values():
                if one.log is not None and not any(one.users.values()):
                    one.unlock()  # who had it was never closed, and is gone
            anchor.users[user] = None
            return anchor

    def leave(self, anchor: Anchor, user: object, *, for_good: bool) -> None:
        """The last one unlocks the anchor; ``for_good`` gives its descriptors back too, if nothing else here has
        the file open. What it holds must be released.
        """
        with self.gate:
            anchor.users.pop(user, None)
            if any(anchor.users.values()) or self._fork.is_inherited():
                return
            anchor.unlock()
            if for_good and not anchor.users:
                self._anchors.pop(anchor.identity, None)
                self._close_what_is_alone()

    def make(self, path: str, mode: int) -> None:
        """A new file, whose descriptor is kept: another thread may open it before this one could close it. Raises
        ``OSError``.
        """
        with self.gate:
            self.forget_inherited()
            made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            found = os.fstat(made)
            self._descriptors[found.st_dev, found.st_ino] = made
            os.fchmod(made, mode)  # whatever the umask

    def index(self, path: str) -> tuple[Identity, int]:
        """Of a log's index: what is found at ``path``, and a descriptor of it. Raises ``OSError``."""
        with self.gate:
            return self._descriptor(path)

    def users_of_log(self, anchor: Anchor, index: int | None) -> list[Any]:
        """Who uses the file, or another one with the log that has this index, in this process."""
        with self.gate:
            return [
                user
                for one in self._anchors.values()
                if one is anchor or (index is not None and one.index == index)
                for user in one.users
            ]

    def is_log_of_other(self, anchor: Anchor, index: int) -> bool:
        """Whether another file is used with the log that has this index."""
        if anchor.descriptor is None:
            return False
        with self.gate:
            return any(one.index == index for one in self._anchors.values() if one is not anchor) or _has_others(
                index, anchor.identity
            )

    def own_descriptors(self) -> set[int]:
        """All of this process's."""
        return set(self._descriptors.values())

    def forget_inherited(self) -> None:
        """In a forked child: the parent's descriptors are closed, which unlocks nothing as long as the parent has
        them. To unlock them would unlock the parent's.
        """
        if self._fork.is_inherited():
            self._fork = ForkGuard()
            descriptors = list(self._descriptors.values())
            self._descriptors, self._anchors = {}, {}
            for descriptor in descriptors:
                with suppress(OSError):
                    os.close(descriptor)

    def _anchor(self, identity: Identity, descriptor: int | None) -> Anchor:
        found = self._anchors.get(identity)
        if found is None:
            if descriptor is not None and not _has_locks(descriptor):
                descriptor = None
            found = self._anchors[identity] = Anchor(identity, descriptor)
        return found

    def _descriptor(self, path: str) -> tuple[Identity, int]:
        # To open with O_PATH, and to close that, touches no lock: so it is seen whether there is a descriptor
        # already.
        seen = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            found = os.fstat(seen)
            identity = found.st_dev, found.st_ino
            if not stat.S_ISREG(found.st_mode):
                raise IsADirectoryError(f"{path}: is no regular file")
            if identity not in self._descriptors:
                self._descriptors[identity] = os.open(f"/proc/self/fd/{seen}", os.O_RDWR | os.O_CLOEXEC)
            return identity, self._descriptors[identity]
        finally:
            os.close(seen)

    def _close_what_is_alone(self) -> None:
        in_use = {anchor.descriptor for anchor in self._anchors.values()}
        in_use |= {anchor.index for anchor in self._anchors.values()}
        ours = self.own_descriptors()
        with suppress(OSError):
            elsewhere = {identity for number, identity in opened_here() if number not in ours}
            for identity, descriptor in list(self._descriptors.items()):
                if descriptor not in in_use and identity not in elsewhere:
                    del self._descriptors[identity]
                    os.close(descriptor)


def _byte_of(one: Sequence[int]) -> int:
    # As each version of Python counts it: hash() need not be that.
    start, length = _REGISTER
    return start + reduce(lambda mixed, number: (mixed * _MIX + number) % length, one, 0)


def _has_others(descriptor: int, one: Sequence[int] | None) -> bool:
    """Whether another process is registered there, but at the byte of ``one``."""
    start, length = _REGISTER
    if one is None:
        return not ofd.is_free(descriptor, start, length)
    byte, end = _byte_of(one), start + length
    parts = [(first, last - first) for first, last in ((start, byte), (byte + 1, end)) if last > first]
    return not all(ofd.is_free(descriptor, *part) for part in parts)


def _has_locks(descriptor: int) -> bool:
    try:
        ofd.try_lock(descriptor, _PROBE, alone=False)
        ofd.unlocker(descriptor, _PROBE)()
    except OSError:
        return False
    return True
