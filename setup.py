"""Everything else stands in setup.cfg.

The stores lie in ``stores/`` at the top, where a reader finds them, and are imported as ``kqueue.stores``, so
that no user's own package ``stores`` collides with them. The link ``kqueue/stores`` serves all tools that read
the source tree as it is (editable installs, mypy, pytest); ``package_dir`` serves the wheel, which has no links.
"""

from setuptools import setup

setup(
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
