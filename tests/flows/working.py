"""A worker that runs in a thread."""

import threading
from typing import Any

from kqueue import KQueue, RunReport

PATIENCE_S = 240.0


class Working:
    """A ``work`` in a thread of its own, until its end."""

    def __init__(self, queue: KQueue, **options: Any) -> None:
        self._queue = queue
        self._options = options
        self._ended: list[RunReport | BaseException] = []
        self._is_stopped = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Working":
        self._thread.start()
        return self

    def stop(self) -> None:
        """Once: a second ``stop``, when nothing runs any more, would end the next ``work``."""
        if not self._is_stopped:
            self._is_stopped = True
            self._queue.stop()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "work does not end"

    @property
    def report(self) -> RunReport:
        """Once it has ended."""
        [report] = self._ended
        assert isinstance(report, RunReport), report
        return report

    def _work(self) -> None:
        try:
            self._ended.append(self._queue.work(**self._options))
        except BaseException as error:
            self._ended.append(error)
