"""A store as a thing that is opened and closed, and knows the time."""

from typing import Protocol


class Session(Protocol):
    """A store as a thing that is opened and closed, and knows the time. See :mod:`kqueue.contracts.store` for what
    holds for every method.
    """

    @property
    def address(self) -> str:
        """Its URL for messages, without a password."""

    @property
    def shared_url(self) -> str | None:
        """The URL that leads another process here, whatever folder that is in, with all options and passwords; None
        if no other process reaches it. Connects nowhere.
        """

    def open(self) -> None:
        """Connect, and make or migrate the schema. Idempotent; every other call opens by itself.

        Raises ``StoreError`` if the schema is newer than this KQueue knows.
        """

    def close(self) -> None:
        """Close this process's handles. Idempotent; a later call opens again."""

    def now(self) -> float:
        """The store's clock: seconds since 1970."""

    def setting(self, name: str, default: str) -> str:
        """The setting's value; if it has none, ``default`` is stored. Of many writers the first wins.

        A store that this user may only read returns ``default``, and all that would write there raises
        ``StoreReadOnly``; what reads it works, and a copy has the id of no other.
        """

    def remember(self, name: str, value: str) -> None:
        """Keep a value under a name, in the place of what was there. Apart from settings."""

    def remembered(self, name: str) -> str | None:
        """What :meth:`remember` was given last; None if it never was."""

    def identity(self) -> str:
        """The store's random id, as :func:`kqueue.model.tubes.new_id` makes one: always the same, unless another
        store has taken its place.

        It is bound to what no copy has: to the inode and birth of a SQLite file; to a database's name and its
        replica set; to the instance of a store in memory. What was copied takes an id of its own when it is opened,
        and every claim of it gives a fence above any that the original may have given since.
        """

    def begin_anew(self) -> None:
        """Take another id, and begin fences anew, as a copy does: for contents that were restored in their old
        place, which nothing tells from the original. Nobody may use the store meanwhile.
        """

    def exists(self) -> bool:
        """Whether there is a store at the address, so that :meth:`open` makes none. Makes nothing."""
