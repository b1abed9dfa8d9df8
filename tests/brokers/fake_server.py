"""A server of beanstalkd's protocol that does as the test says."""

import socket
import threading

from kqueue.brokers import open_broker
from kqueue.contracts.broker import Broker, Subscription
from tests.tubes import PATIENCE_S, PREFIX, run


class FakeServer:
    """Says ``script[i]`` after the i-th bytes it hears, to each connection, then hangs up or goes silent."""

    def __init__(self, *script: bytes, hang_up: bool) -> None:
        self.script = script
        self.hang_up = hang_up
        self.heard = b""
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.peers: list[socket.socket] = []
        self.talks: list[threading.Thread] = []
        self._opened: list[Broker | Subscription] = []
        self.url = f"beanstalk://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = run(self._accept)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.peers.append(peer)
            run(lambda peer=peer: self._talk(peer))

    def _talk(self, peer: socket.socket) -> None:
        self.talks.append(threading.current_thread())  # before it answers: who has an answer finds it
        try:
            for line in self.script:
                self.heard += peer.recv(65536)
                peer.sendall(line)
            if self.hang_up:
                peer.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def broker(self, query: str = "") -> Broker:
        """On this server, and open until it stops."""
        broker = open_broker(self.url + query)
        self._opened.append(broker)
        broker.open(PREFIX)
        return broker

    def subscription(self) -> Subscription:
        """To the one type "mail", until it stops."""
        subscription = self.broker().subscribe(["mail"])
        self._opened.append(subscription)
        return subscription

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(PATIENCE_S)
        for peer in self.peers:
            peer.close()
        for one in self._opened:
            one.close()


def figures(text: bytes) -> bytes:
    """A server's answer to ``stats``."""
    return b"OK %d\r\n%b\r\n" % (len(text), text)
