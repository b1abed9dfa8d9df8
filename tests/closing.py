"""What a test opens is closed after it, also where it fails."""

from typing import Protocol, TypeVar


class Closable(Protocol):
    """A queue, a store, a broker, a subscription, a socket, a client."""

    def close(self) -> object: ...


T = TypeVar("T", bound=Closable)


class Closes(Protocol):
    """``queue = closes(KQueue(...))``"""

    def __call__(self, thing: T, /) -> T: ...
