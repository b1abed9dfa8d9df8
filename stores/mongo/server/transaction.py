"""A transaction over some documents of a MongoDB, begun again where others were faster.

What two transactions change at once fails in the second of them, at once [1]_: so of those that compete one goes on
and the others see what it did. A process that dies in the middle leaves its transaction open, and nobody can change
what it had changed until the server ends it: after ``transactionLifetimeLimitSeconds``, a minute or more [2]_. So a
transaction here changes last what others want to change too, and nothing that many want: a claim of jobs, which
each worker makes again and again, is none (see :mod:`kqueue.stores.mongo.turns`).

.. [1] https://www.mongodb.com/docs/manual/core/transactions-production-consideration/
.. [2] Tried with MongoDB 6.0.5: the client was killed, and its transaction ended 90 seconds later.
"""

from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import TypeVar

import pymongo
from pymongo import ReadPreference
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import AutoReconnect, PyMongoError, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern

from kqueue.stores.mongo.schema import Document
from kqueue.stores.mongo.server.errors import TRANSIENT, may_be_done
from kqueue.stores.mongo.server.interrupts import spoils
from kqueue.stores.mongo.server.patience import Patience

T = TypeVar("T")

#: Seconds to tell the server that it is given up. Where it is not told it finds out by itself.
_ABORT_S = 1.0


def in_transaction(
    database: Database[Document],
    work: Callable[[ClientSession], T],
    look: Callable[[], T | None],
    abandon: Callable[[Document], None],
) -> T:
    """What ``work`` gives, once all that it did under its session is durable; if it raises, nothing is done.

    It may be called several times. A connection that breaks is tried once more, as everywhere. Where nobody can
    tell whether it is done, ``look`` may find what it has given; if it does not, the ``PyMongoError`` that this
    raises is one of which :func:`~kqueue.stores.mongo.server.errors.may_be_done` says so.

    After an interrupt within the driver nothing more can be said to it. ``abandon`` is then given the session's id.
    """
    patience = Patience()
    broke = False
    session = database.client.start_session()
    try:
        while True:
            # As durable as the client's own writes are, so as the URL says.
            session.start_transaction(ReadConcern("snapshot"), read_preference=ReadPreference.PRIMARY)
            try:
                result = work(session)
                session.commit_transaction()  # the driver asks once more if the reply is lost
                break
            except PyMongoError as error:
                _give_up(session)
                if may_be_done(error):
                    with suppress(PyMongoError):
                        found = look()
                        if found is not None:
                            result = found
                            break
                    raise
                if isinstance(error, ServerSelectionTimeoutError):
                    raise
                if isinstance(error, AutoReconnect):
                    if broke:
                        raise
                    broke = True
                elif not (error.has_error_label(TRANSIENT) and patience.wait()):
                    raise
    except BaseException as error:
        if spoils(error):
            abandon(dict(session.session_id))
            raise
        session.end_session()  # which gives up what is under way
        raise
    session.end_session()
    return result


def _give_up(session: ClientSession) -> None:
    if session.in_transaction:
        # In a context of its own: an interrupt could leave the time-out in the thread's.
        copy_context().run(_abort, session)


def _abort(session: ClientSession) -> None:
    with pymongo.timeout(_ABORT_S):
        session.abort_transaction()
