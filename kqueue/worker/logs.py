"""Where the worker's log goes if nobody has said so."""

import logging
from collections.abc import Iterable

#: Time, level, process, and what.
FORM = "%(asctime)s %(levelname)s %(process)d %(message)s"


def silenced(loggers: Iterable[logging.Logger]) -> str | None:
    """What to say if the app's configuration has disabled one of ``loggers``, so that it tells nothing; else None.
    That is what ``logging.config.dictConfig`` does by default with all that are there and that it does not name.
    """
    names = sorted({logger.name for logger in loggers if logger.disabled})
    if not names:
        return None
    return (
        f"the app's logging configuration has silenced {' and '.join(names)}: say disable_existing_loggers=False"
        f" there, or name {'it' if len(names) == 1 else 'them'} among its loggers"
    )


def configure(level: str) -> None:
    """Lines on standard error from ``level`` on, unless the app has configured logging. Never at the root."""
    logger = logging.getLogger("kqueue")
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(FORM))
    logger.addHandler(handler)
    logger.setLevel(level.upper())
