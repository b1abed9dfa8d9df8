"""A sleep that another thread or a signal handler can end."""

import os
import select


class Waker:
    """A pipe: :meth:`wake` is one ``write``, the one thing that is safe in a signal handler.

    (``threading.Event.set`` is not: it takes a lock that the interrupted thread may hold.)
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._closed = False

    def fileno(self) -> int:
        """The end to ``select`` on: readable once woken."""
        return self._reader

    def wake(self) -> None:
        """End the current sleep, or the next one."""
        if not self._closed:
            try:
                os.write(self._writer, b"w")
            except BlockingIOError:
                return  # so many wakes are waiting already that the pipe is full

    def sleep(self, seconds: float) -> bool:
        """Sleep at most so long; True if woken."""
        ready, _, _ = select.select([self._reader], [], [], max(0.0, seconds))
        if ready:
            self.clear()
        return bool(ready)

    def clear(self) -> None:
        """Forget wakes that came so far."""
        try:
            while os.read(self._reader, 4096):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close the pipe. A later wake does nothing. Idempotent."""
        if not self._closed:
            self._closed = True
            os.close(self._reader)
            os.close(self._writer)
