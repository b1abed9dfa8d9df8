"""What a command of a page says."""

import os
import subprocess
import sys
from pathlib import Path


def said(command: str, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KQUEUE_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "KQUEUE_STORE": "sqlite:///jobs.db",
        "COLUMNS": "200",
    }
    done = subprocess.run(
        command, check=False, shell=True, cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.stdout.replace(str(folder) + "/", "") + done.stderr
