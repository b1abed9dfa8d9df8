"""What runs the jobs of a type, and which types have something here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from kqueue.job import JobInHand


@dataclass(frozen=True, slots=True)
class Handler:
    """What runs the jobs of a type, and how."""

    function: Callable[[JobInHand], Any]
    #: Whether a job whose handler returns is deleted, instead of retried as "not deleted".
    delete_on_success: bool = False
    #: Whether its jobs' leases are renewed while it runs.
    auto_renew: bool = False
    #: Seconds that it may run, with ``auto_renew``; None: without end.
    max_runtime: float | None = None


class Handlers:
    """The handlers of a queue, by type.

    The mapping is replaced, never changed: loops of other threads read it, and see by its identity that it is new.
    """

    def __init__(self) -> None:
        self._by_type: Mapping[str, Handler] = MappingProxyType({})

    def all(self) -> Mapping[str, Handler]:
        """By type, as they are now."""
        return self._by_type

    def refuse_second(self, type: str) -> None:
        """Raises ``ValueError`` if the type has one."""
        if type in self._by_type:
            raise ValueError(f"type: {type} has a handler already; remove_handler comes first")

    def add(self, type: str, handler: Handler) -> None:
        """Raises ``ValueError`` if the type has one."""
        self.refuse_second(type)
        self._by_type = MappingProxyType({**self._by_type, type: handler})

    def remove(self, type: str) -> bool:
        """False if it had none."""
        rest = {name: handler for name, handler in self._by_type.items() if name != type}
        had = len(rest) < len(self._by_type)
        self._by_type = MappingProxyType(rest)
        return had
