"""Which URLs name a broker."""

import pytest

from kqueue.brokers import open_broker


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("beanstalk://127.0.0.1:11301", "beanstalk://127.0.0.1:11301"),
        ("beanstalk://queue.example", "beanstalk://queue.example:11300"),
        ("beanstalk://queue.example/?timeout=2&connect_timeout=0.5", "beanstalk://queue.example:11300"),
        ("beanstalk://[::1]:5", "beanstalk://[::1]:5"),
        ("beanstalk://queue.example.", "beanstalk://queue.example.:11300"),
        ("beanstalk://bücher.example", "beanstalk://bücher.example:11300"),
        ("beanstalk+unix:///run/b.sock", "beanstalk+unix:///run/b.sock"),
        ("beanstalk+unix:///run/b%20c.sock", "beanstalk+unix:///run/b%20c.sock"),
    ],
)
def test_a_url_names_a_server(url, address):
    assert open_broker(url).address == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:11300",
        "redis://127.0.0.1",
        "beanstalk://",
        "beanstalk://:11300",
        "beanstalk://host:port",
        "beanstalk://host:0",
        "beanstalk://host:70000",
        "beanstalk://a..b",
        "beanstalk://a..b:11300",
        "beanstalk://.host",
        "beanstalk://" + "x" * 64,
        "beanstalk://host/path",
        "beanstalk://user:secret@host",
        "beanstalk://host#x",
        "beanstalk://host?speed=1",
        "beanstalk://host?timeout",
        "beanstalk://host?timeout=",
        "beanstalk://host?timeout=soon",
        "beanstalk://host?timeout=0",
        "beanstalk://host?timeout=-1",
        "beanstalk://host?timeout=nan",
        "beanstalk://host?connect_timeout=inf",
        "beanstalk+unix://relative",
        "beanstalk+unix:///",
    ],
)
def test_any_other_url_is_refused_with_what_is_allowed(url):
    with pytest.raises(ValueError, match=r"^broker: .*expected beanstalk://host:port or beanstalk\+unix:///path"):
        open_broker(url)


def test_a_url_is_text():
    with pytest.raises(TypeError, match="^broker: "):
        open_broker(b"beanstalk://host")  # type: ignore[arg-type]
