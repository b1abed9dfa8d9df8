"""Where the worker's log goes if nobody has said so."""

import logging

#: Time, level, process, and what.
FORM = "%(asctime)s %(levelname)s %(process)d %(message)s"


def configure(level: str) -> None:
    """Lines on standard error from ``level`` on, unless the app has configured logging. Never at the root."""
    logger = logging.getLogger("kqueue")
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(FORM))
    logger.addHandler(handler)
    logger.setLevel(level.upper())
