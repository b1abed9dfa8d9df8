"""The contracts of stores and brokers in running code, one module a role, for whoever writes a store or a broker.

A test module of yours takes a role, or all of a store's at once, and your ``conftest.py`` says what is tested::

    from kqueue.testing.contracts.intake import *  # or .store, or .broker

See :mod:`kqueue.testing.contracts.fixtures` for what ``conftest.py`` gives. These modules need pytest.
"""

from pathlib import Path

import pytest

# Each by its name: this module itself is imported already. So a failed assert shows its values.
pytest.register_assert_rewrite(
    *sorted(f"{__name__}.{path.stem}" for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")
)
