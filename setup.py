"""Everything else stands in setup.cfg.

The stores lie in ``stores/`` at the top, where a reader finds them, and are imported as ``kqueue.stores``, so
that no user's own package ``stores`` collides with them. The link ``kqueue/stores`` serves all tools that read
the source tree as it is (editable installs, mypy, pytest); ``package_dir`` serves the wheel, which has no links.
"""

from setuptools import setup

setup(
    packages=[
        "kqueue",
        "kqueue.brokers",
        "kqueue.commands",
        "kqueue.keeper",
        "kqueue.stores",
        "kqueue.worker",
    ],
    package_dir={"kqueue": "kqueue", "kqueue.stores": "stores"},
    package_data={"kqueue": ["py.typed"]},
)
