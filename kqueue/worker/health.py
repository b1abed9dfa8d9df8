"""The health file: it is fresh as long as the worker gets on."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Bytes of a file that are looked at to know it.
LOOKED_AT = 1000


class HealthFile:
    """One JSON object, replaced as a whole, so that a reader never sees a half of it."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).absolute()
        #: Beside it, since a rename does not go from one file system to another.
        self._new = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")

    def prepare(self) -> None:
        """Remove what an earlier worker has left. Raises ``ValueError`` if the file could not be written later."""
        if self._path.exists() and not self._path.is_file():
            raise ValueError(f"--health-file: {self._path} is there and is no regular file")
        try:
            self._refuse_another_ones()
            self._new.write_text("")
            self._new.unlink()
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(f"--health-file: {self._path} cannot be written: {error.strerror}") from None

    def _refuse_another_ones(self) -> None:
        """It is removed and replaced, so a name that was mistyped must not cost somebody a file."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            text = file.read(LOOKED_AT)
        if text and not (text.startswith(b'{"time": ') and b'"children": ' in text):
            raise ValueError(f"--health-file: {self._path} is there and is no health file: give another path")

    def write(self, values: dict[str, Any]) -> None:
        """Raises ``OSError``; then the old one stands, and grows old."""
        self._new.write_text(json.dumps(values) + "\n")
        self._new.replace(self._path)

    def remove(self) -> None:
        """Remove the file: the worker ends."""
        for path in (self._path, self._new):
            with suppress(OSError):
                path.unlink(missing_ok=True)
