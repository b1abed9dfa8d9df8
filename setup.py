"""Everything else stands in setup.cfg.

The stores lie in ``stores/`` at the top, where a reader finds them, and are imported as ``kqueue.stores``, so
that no user's own package ``stores`` collides with them. The link ``kqueue/stores`` serves all tools that read
the source tree as it is (editable installs, mypy, pytest); ``package_dir`` serves the wheel, which has no links.
"""

import configparser
import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
#: ``text <docs/page.rst>`` of a link that leads to a file beside the README.
LINK = re.compile(r"`([^`<]+?)\s*<(?![a-z]+:)([^>]+)>`_")


def description() -> str:
    """The README for a package index, which has none of the files beside it: each link leads to where setup.cfg
    says that the source is (``url``); as long as it says nothing, the file is named.
    """
    config = configparser.ConfigParser()
    config.read(HERE / "setup.cfg")
    source = config.get("metadata", "url", fallback="").rstrip("/")
    link = rf"`\1 <{source}/blob/main/\2>`_" if source else r"\1 (``\2``)"
    text = (HERE / "README.rst").read_text()
    # What stands in a frame is indented instead: a longer line would break the frame.
    text = re.sub(r"^\+-+\+\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\| ?(.*?) *\|$", r"    \1", text, flags=re.MULTILINE)
    return LINK.sub(lambda found: re.sub(r"\s+", " ", found.expand(link)), text)


setup(
    long_description=description(),
    packages=[
        "kqueue",
        "kqueue.admin",
        "kqueue.brokers",
        "kqueue.brokers.beanstalk",
        "kqueue.cli",
        "kqueue.cli.looks",
        "kqueue.config",
        "kqueue.contracts",
        "kqueue.dispatch",
        "kqueue.execution",
        "kqueue.loops",
        "kqueue.model",
        "kqueue.renewal",
        "kqueue.stores",
        "kqueue.stores.memory",
        "kqueue.stores.mongo",
        "kqueue.stores.mongo.server",
        "kqueue.stores.sqlite",
        "kqueue.stores.sqlite.file",
        "kqueue.system",
        "kqueue.telemetry",
        "kqueue.testing",
        "kqueue.testing.contracts",
        "kqueue.upkeep",
        "kqueue.worker",
    ],
    package_dir={"kqueue": "kqueue", "kqueue.stores": "stores"},
    package_data={"kqueue": ["py.typed"]},
)
