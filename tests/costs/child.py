"""One process that adds jobs and runs them, for its system calls to be counted.

python -m tests.costs.child JOBS STORE [BROKER]
"""

import sys

from tests.costs.work import open_queue, run

if __name__ == "__main__":
    with open_queue(*sys.argv[2:]) as queue:
        run(queue, int(sys.argv[1]))
