"""Which types have a handler, and which of them a loop serves."""

import pytest

from kqueue.model.handlers import Handler, Handlers, Part

PLAIN = Handler(lambda job: None)
ASYNC = Handler(lambda job: None, is_async=True)


def test_the_mapping_is_replaced_when_a_handler_comes_or_goes() -> None:
    handlers = Handlers()
    before = handlers.all()
    handlers.add("t", PLAIN)
    assert before == {}
    assert handlers.all() == {"t": PLAIN}
    assert handlers.all() is handlers.all()
    with pytest.raises(ValueError, match="t has a handler already"):
        handlers.add("t", ASYNC)
    assert handlers.remove("t") is True
    assert handlers.remove("t") is False


def test_a_part_is_the_same_mapping_until_what_belongs_to_it_changes() -> None:
    handlers = Handlers()
    part = Part(handlers.all, lambda type, handler: handler.is_async)
    assert part() == {}
    handlers.add("a", ASYNC)
    before = part()
    assert before == {"a": ASYNC}
    handlers.add("p", PLAIN)
    assert part() is before
    handlers.remove("a")
    assert part() == {}
    handlers.add("a", PLAIN)
    assert part() == {}
