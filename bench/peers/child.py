"""One step of one peer, in the peer's own environment.

    python -m bench.peers.child PEER add_in_bulk|add_one_by_one|work|left [JOBS]

Prints a number: the seconds that adding took, or the jobs that are left. Jobs are added to an empty queue only.
"""

import importlib
import sys
import time


def main(peer: str, step: str, jobs: str = "0") -> None:
    """Do it."""
    module = importlib.import_module(f"bench.peers.{peer}_peer")
    if step == "work":
        module.work()
    elif step == "left":
        print(module.left())
    else:
        # This connects too, so that the clock does not run for that.
        assert module.left() == 0, "an earlier round left jobs"
        started = time.perf_counter()
        getattr(module, step)(int(jobs))
        print(time.perf_counter() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
