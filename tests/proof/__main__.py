"""Prove what ``make test`` samples.

    python -m tests.proof [--minutes N] [--workers 2]

With ``--minutes`` it ends in that time and a few minutes, whatever the machine's speed: it begins at another place
each day, and what it does not come to is left out, counted, and no failure. Exit status 1 if a lot has failed.
"""

import argparse
import math
import signal
import sys
from datetime import UTC, datetime

from tests import folders
from tests.proof.lots import MOST_AT_PLACES, collected, of_tests, of_tortures, ordered
from tests.proof.run import Account, Done, Run

#: Seconds that a lot may go on once the time is up.
GRACE_S = 180.0
#: Of the lots that took longest, so many are named.
LONGEST = 25


def main() -> int:
    """Run it and print what became of all lots."""
    wanted = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = folders.use()
    try:
        day = datetime.now(UTC).date()
        lots = of_tests(collected("proof")) + of_tests(collected("places"), MOST_AT_PLACES, "::")
        lots += of_tortures(seed=day.toordinal())
        first, lots = ordered(lots, day)
        print(
            f"proof: {len(lots)} lots, on {day} from number {first + 1} on, {wanted.workers} at a time", flush=True
        )
        account = Run(lots, 60 * wanted.minutes, GRACE_S, tell).run(wanted.workers)
    finally:
        folders.remove(folder)
    print("\n".join(summary(account)))
    return 1 if account.failed() else 0


def tell(done: Done) -> None:
    """Of a lot, when it ends; a failure is told whole."""
    print(f"{'FAILED' if done.status else 'proved'}  {done.seconds:6.0f} s  {done.lot.name}", flush=True)
    if done.status:
        print(done.output, flush=True)


def summary(account: Account) -> list[str]:
    """Lines."""
    longest = sorted(account.done, key=lambda one: -one.seconds)[:LONGEST]
    failed = account.failed()
    return [
        "the longest:",
        *(f"{one.seconds:6.0f} s  {one.lot.name}" for one in longest),
        *(f"cut off, for the time was up: {lot.name}" for lot in account.cut_off),
        *(f"FAILED: {one.lot.name}" for one in failed),
        f"proof: {len(account.done) - len(failed)} lots proved, {len(failed)} failed,"
        f" {len(account.cut_off)} cut off and {len(account.left_out)} left out, for the time was up",
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.proof")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="after which no lot begins; default: all do"
    )
    parser.add_argument("--workers", type=int, default=2, help="lots at a time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
