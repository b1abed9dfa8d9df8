"""Who listens to events, and what becomes of one that raises."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeAlias

from kqueue.model.events import Event
from kqueue.system.locks import is_main_thread

Observer: TypeAlias = Callable[[Event], object]


class Subscribers:
    """The observers of a queue. Shared by threads, and inherited by a fork.

    To add one, to take one out and to list them are each atomic, so there is no lock: an observer may itself
    subscribe and unsubscribe, and none is found locked in a forked child.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._subscriptions: dict[_Subscription, None] = {}

    def are_any(self) -> bool:
        """Whether it is of use to make an event."""
        return bool(self._subscriptions)

    def subscribe(self, function: Observer) -> Callable[[], None]:
        """Call ``function`` with every event from now on; returns what ends that.

        Raises ``ValueError`` if it is subscribed already: each event would count twice.
        """
        if any(one.function == function for one in list(self._subscriptions)):
            raise ValueError(f"function: {name_of(function)} is subscribed already; unsubscribe comes first")
        subscription = _Subscription(function)
        self._subscriptions[subscription] = None
        return lambda: self._end(subscription)

    def unsubscribe(self, function: Observer) -> bool:
        """End it. False if it was not subscribed."""
        found = [one for one in list(self._subscriptions) if one.function == function]
        for one in found:
            self._end(one)
        return bool(found)

    def publish(self, events: Iterable[Event]) -> None:
        """Tell all observers, in the order subscribed. Call it with no lock held: an observer may use the queue.

        Raises nothing but a ``KeyboardInterrupt`` or ``SystemExit`` that comes in the main thread, as they do from
        signal handlers; events that were to follow are then lost.
        """
        for event in events:
            for subscription in list(self._subscriptions):
                try:
                    subscription.function(event)
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt | SystemExit) and is_main_thread():
                        raise
                    self._complain(subscription, event, error)

    def _end(self, subscription: "_Subscription") -> None:
        self._subscriptions.pop(subscription, None)

    def _complain(self, subscription: "_Subscription", event: Event, error: BaseException) -> None:
        """Once for each kind of error."""
        if type(error) not in subscription.complaints:
            subscription.complaints.add(type(error))
            self._logger.error(
                "the observer %s raised %s at %s; it is called further, and its next %s is not logged",
                name_of(subscription.function),
                type(error).__name__,
                type(event).__name__,
                type(error).__name__,
                exc_info=error,
            )


class _Subscription:
    __slots__ = ("complaints", "function")

    def __init__(self, function: Observer) -> None:
        self.function = function
        #: The kinds of errors that were logged.
        self.complaints: set[type[BaseException]] = set()


def name_of(function: Observer) -> str:
    """How messages call an observer: its name where it has one, or else its class."""
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__name__
