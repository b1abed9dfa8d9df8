"""The renewer of one worker: ``python -m kqueue.renewal DESCRIPTOR``, as :mod:`kqueue.renewal.starting` runs it.

It ends when its worker has gone or has closed the socket, which is the inherited file ``DESCRIPTOR``.
"""

import logging
import os
import socket
import sys
from functools import partial

from kqueue.renewal.server import Server
from kqueue.stores import open_store
from kqueue.system import streams

if __name__ == "__main__":
    streams.secure()
    server = Server(partial(open_store, create=False), logging.getLogger("kqueue"))
    server.add(socket.socket(fileno=int(sys.argv[1])))
    server.serve(until_alone=True)
    os._exit(0)  # whatever a store's thread may still wait for
