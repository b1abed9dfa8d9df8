"""Other Python job queues, on the same work. See ``bench/README.rst``; ``make bench-peers`` runs it all.

``python -m bench.peers`` measures. Each ``*_peer.py`` here holds one queue, used as its own documentation says, and
runs in the environment of ``requirements.txt``, apart from KQueue's.
"""
