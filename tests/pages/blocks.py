"""What the README and the pages of ``docs/`` show."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    """The text of ``docs/NAME.rst``."""
    return (ROOT / "docs" / f"{name}.rst").read_text()


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of one language, without their indent."""
    found = re.findall(rf"\.\. code-block:: {language}\n\n((?:(?:    .*)?\n)+)", text)
    return ["\n".join(line[4:] for line in block.rstrip().splitlines()) + "\n" for block in found]
