"""What runs the jobs of a type, and which types have something here."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias, TypedDict, TypeVar, Unpack

from kqueue.model import checks, times
from kqueue.model.around import Around, AroundFunction, checked, surrounded
from kqueue.model.job import JobInHand
from kqueue.model.retry import RetryPolicy
from kqueue.model.times import Duration
from kqueue.model.wording import shown

#: Some types; None: all that have a handler.
Types: TypeAlias = Iterable[str] | None
#: What returns handlers by type, as they are at each call.
HandlersNow: TypeAlias = Callable[[], "Mapping[str, Handler]"]
#: What runs one job, or with ``batch`` a list of them.
AnyHandlerFunction: TypeAlias = Callable[[JobInHand], Any] | Callable[[list[JobInHand]], Any]
#: What a decorator takes and returns as it is.
HandlerFunction = TypeVar("HandlerFunction", bound=AnyHandlerFunction)
#: Jobs of one call at most: what one claim takes.
MOST_BATCH = 512


@dataclass(frozen=True, slots=True)
class Handler:
    """What runs the jobs of a type, and how."""

    function: Callable[[Any], Any]
    #: Whether a job whose handler returns is deleted, instead of retried as "not deleted". None: as its type's
    #: options say.
    delete_on_success: bool | None = None
    #: Whether its jobs' leases are renewed while it runs.
    auto_renew: bool = False
    #: Seconds that it may run, with ``auto_renew``; None: without end.
    max_runtime: float | None = None
    #: Whether the process is killed in which it runs for longer, by a parent that there is.
    kill: bool = False
    #: Whether it is a coroutine function, which runs in an event loop.
    is_async: bool = False
    #: Jobs that it runs at once in a process: of a coroutine function under ``work``; of a plain one at most, None
    #: for no bound of its own.
    concurrency: int | None = None
    #: How many jobs one call is given at most, in a list; None: one, by itself.
    batch: int | None = None

    @property
    def batch_function(self) -> Callable[[list[JobInHand]], Any]:
        """The function of a handler that takes lists."""
        function: Callable[[Any], Any] = self.function
        return function


def name_of(function: Callable[..., Any]) -> str:
    """A handler's function as its author knows it: ``shop.resize``."""
    function = inspect.unwrap(function)
    kind = type(function)
    module = getattr(function, "__module__", kind.__module__)
    return f"{module}.{getattr(function, '__qualname__', kind.__qualname__)}"


class HandlerOptions(TypedDict, total=False):
    """What ``queue.add_handler`` takes beside the function, and so do its decorators."""

    #: A job whose handler returns is deleted, instead of retried as "not deleted". By default None: as the options
    #: of the type say, or of the queue.
    delete_on_success: bool | None
    #: The type's retry policy, as by ``queue.options``. By default None: what was set there, or the queue's own.
    retry: RetryPolicy | None
    #: Another process renews the lease while the handler runs. By default False.
    auto_renew: bool
    #: With ``auto_renew``: seconds that the handler may run. By default None: without end.
    max_runtime: Duration | None
    #: With ``max_runtime``: ``kqueue worker`` kills the process whose handler runs for longer. By default False.
    kill: bool
    #: A call gets a list of so many jobs at most, up to 512. By default each call gets one job, and no list.
    batch: int
    #: How many calls it runs at once in a process: an ``async def`` under ``work``, by default 1; a plain function
    #: at most, by default as many as there are threads.
    concurrency: int


def check_names(
    call: str, given: Mapping[str, object], taker: str = "a handler", options: type = HandlerOptions
) -> None:
    """Raises ``TypeError``, as Python does for an argument that is not there, naming ``call`` and what it takes."""
    known = sorted(options.__annotations__)
    for name in given:
        if name not in known:
            raise TypeError(
                f"{call}() got an unexpected keyword argument {name!r}; {taker} takes {', '.join(known)}"
            )


def make(type: str, function: AnyHandlerFunction, **given: Unpack[HandlerOptions]) -> Handler:
    """The handler of ``type``, all of it checked but its ``retry``. Raises ``ValueError`` or ``TypeError``."""
    is_async = checks.handler_function(f"handler of {type}", function)
    max_runtime, deletes = given.get("max_runtime"), given.get("delete_on_success")
    handler = Handler(
        function,
        delete_on_success=None if deletes is None else checks.flag("delete_on_success", deletes),
        auto_renew=checks.flag("auto_renew", given.get("auto_renew", False)),
        max_runtime=None if max_runtime is None else times.seconds_above_0("max_runtime", max_runtime),
        kill=checks.flag("kill", given.get("kill", False)),
        is_async=is_async,
        concurrency=checks.whole("concurrency", given["concurrency"], 1) if "concurrency" in given else None,
        batch=checks.whole("batch", given["batch"], 1, MOST_BATCH) if "batch" in given else None,
    )
    if handler.batch is not None and handler.max_runtime is not None:
        raise ValueError(
            "max_runtime: not with batch, whose calls have no time but that of their jobs; set their ttr"
        )
    if handler.max_runtime is not None and not handler.auto_renew:
        raise ValueError("max_runtime: only with auto_renew=True; without it the TTR of a job bounds its runs")
    if handler.kill and handler.max_runtime is None:
        raise ValueError("kill: only with auto_renew=True and max_runtime=..., which says after how long")
    return handler


def registering(
    types: Iterable[str], add: Callable[[str, HandlerFunction], object]
) -> Callable[[HandlerFunction], HandlerFunction]:
    """A decorator that calls ``add(type, function)`` for each of the types."""

    def register(function: HandlerFunction) -> HandlerFunction:
        for type in types:
            add(type, function)
        return function

    return register


class Handlers:
    """The handlers of a queue, by type.

    The mapping is replaced, never changed: loops of other threads read it, and see by its identity that it is new.
    """

    def __init__(self) -> None:
        self._by_type: Mapping[str, Handler] = MappingProxyType({})
        #: The same, and those that are paused here.
        self._known: Mapping[str, Handler] = MappingProxyType({})
        #: As they were given, with nothing around them.
        self._bare: dict[str, Handler] = {}
        #: Those that are not chosen are as if they were not there, whenever they come.
        self._is_chosen: Callable[[str], bool] = lambda type: True
        #: Types that are paused in this process alone; None among them stands for all.
        self._paused: set[str | None] = set()
        self._around: list[AroundFunction] = []

    def all(self) -> Mapping[str, Handler]:
        """All handlers by type, as they are now, but for those that are paused here."""
        return self._by_type

    def known(self) -> Mapping[str, Handler]:
        """All of them, those that are paused here too."""
        return self._known

    def types(self) -> list[str]:
        """Those that have one, sorted."""
        return sorted(self._known)

    def choose(self, is_chosen: Callable[[str], bool]) -> None:
        """Serve only types for which this is true, also of those that get a handler later."""
        self._is_chosen = is_chosen
        self._replace()

    def pause(self, type: str | None) -> bool:
        """Serve ``type``, or any if None, no more until :meth:`resume`. False if it was paused here."""
        was_paused = type in self._paused
        self._paused = {*self._paused, type}
        self._replace()
        return not was_paused

    def resume(self, type: str | None) -> bool:
        """End what :meth:`pause` was given so. False if it was not."""
        was_paused = type in self._paused
        self._paused = self._paused - {type}
        self._replace()
        return was_paused

    def only(self, types: Types) -> tuple[HandlersNow, HandlersNow]:
        """What returns those of ``types`` as they are at each call, or all if it is None; and with them those that
        are paused here.

        Raises ``ValueError`` if one of them has none now, ``TypeError`` if it is no list of types.
        """
        if types is None:
            return self.all, self.known
        if isinstance(types, str) or not isinstance(types, Iterable):
            raise TypeError(f"types: expected a list of types, got {shown(types)}")
        chosen = frozenset(checks.text("types", type) for type in types)
        without = sorted(chosen.difference(self._known), key=str)
        if without or not chosen:
            named = f"{without[0]} has no handler" if without else "there is none"
            raise ValueError(f"types: {named}; these have one: {', '.join(self.types())}")
        return Part(self.all, lambda type, _: type in chosen), Part(self.known, lambda type, _: type in chosen)

    def refuse_second(self, type: str) -> None:
        """Raises ``ValueError`` if the type has one."""
        if type in self._bare:
            raise ValueError(f"type: {type} has a handler already; remove_handler comes first")

    def add(self, type: str, handler: Handler) -> None:
        """Raises ``ValueError`` if the type has one."""
        self.refuse_second(type)
        self._bare = {**self._bare, type: handler}
        self._replace()

    def remove(self, type: str) -> bool:
        """Forget the handler of ``type``; False if it had none."""
        had = type in self._bare
        self._bare = {name: handler for name, handler in self._bare.items() if name != type}
        self._replace()
        return had

    def surround(self, function: Around) -> Around:
        """Have it around each run of all of them, within those given before: see :mod:`kqueue.model.around`.

        Returns it. Raises ``TypeError`` for what is no such function.
        """
        self._around = [*self._around, checked(function)]
        self._replace()
        return function

    def _replace(self) -> None:
        around = self._around
        by_type = {
            type: replace(handler, function=surrounded(handler.function, handler.is_async, around))
            for type, handler in self._bare.items()
            if self._is_chosen(type)
        }
        paused = self._paused
        self._known = MappingProxyType(by_type)
        self._by_type = (
            MappingProxyType({type: one for type, one in by_type.items() if not {type, None} & paused})
            if paused
            else self._known
        )


class Part:
    """Some handlers of a queue, for one loop. As of all of them, the mapping is replaced when it changes."""

    def __init__(self, all: Callable[[], Mapping[str, Handler]], belongs: Callable[[str, Handler], bool]) -> None:
        """``all()`` returns a mapping that is replaced, never changed."""
        self._all = all
        self._belongs = belongs
        #: (all as they were at the last call, the part of them), in one: two threads may call.
        self._seen: tuple[Mapping[str, Handler], Mapping[str, Handler]] = ({}, MappingProxyType({}))

    def __call__(self) -> Mapping[str, Handler]:
        """Those that belong to the part, by type, as they are now."""
        handlers, part = self._seen
        now = self._all()
        if now is not handlers:
            chosen = {type: handler for type, handler in now.items() if self._belongs(type, handler)}
            part = part if chosen == part else MappingProxyType(chosen)
            self._seen = now, part
        return part
