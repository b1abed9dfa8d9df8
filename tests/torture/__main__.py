"""Torture KQueue with real processes, and say what became of every job.

    python -m tests.torture [--seconds 60] [--seed N] [--store NAME] [--no-binlog] [--json FILE]

The seed fixes what is added, what handlers do, and the order of the faults; which process is doing what when a
fault strikes is left to the system, so one seed gives many histories. Exit status 1 if a promise was not kept.
"""

import argparse
import json
import secrets
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.torture.account import Account
from tests.torture.referee import torture
from tests.torture.servers import STORES


def main() -> int:
    """Run it and print the account."""
    wanted = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    binlog = "with" if wanted.binlog else "without"
    print(f"torture: {wanted.seconds:g} s on {wanted.store} and beanstalkd {binlog} a binlog, seed {wanted.seed}")
    account = torture(wanted.seconds, wanted.seed, wanted.store, wanted.binlog)
    print("\n".join(f"{name:>20}  {value:>9}" for name, value in table(account).items()))
    broken = account.broken()
    for what in broken:
        print(f"BROKEN: {what}")
    for record in account.evidence:
        print(record)
    if wanted.json:
        wanted.json.write_text(json.dumps({**vars(wanted), "json": None, **table(account), "broken": broken}))
    return 1 if broken else 0


def table(account: Account) -> dict[str, Any]:
    """The account, a line each."""
    lines = asdict(account)
    del lines["evidence"]
    seen = lines.pop("seen")
    left = seen.pop("left") or {}
    del seen["rows"], seen["at_risk"]
    return {
        **{name.replace("_", " "): value for name, value in lines.items()},
        "duplicates at most": account.bound,
        **{name.replace("_", " "): value for name, value in seen.items()},
        **{f"{place} left": count for place, count in left.items()},
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("--seconds", type=float, default=60, help="of faults; the drain comes after")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--binlog", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path, help="write the account here too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
