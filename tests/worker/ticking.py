"""A worker that shows that it lives, and whether it does so still."""

from tests.tubes import await_true
from tests.worker.works import Works

#: A parent that has little patience.
SOON = """
import kqueue.worker.children as f, kqueue.worker.liveness as p, kqueue.worker.supervisor as s
p.QUIET_S = 1.6; f.SILENT_S = 1.3; s.TICK_S = 0.2
"""


def grows_old(works: Works) -> None:
    """Wait until the parent has looked at everything three times and has not written."""
    path = works.folder / "health"
    looks: list[tuple[int, int]] = [(ticks(works), path.stat().st_mtime_ns)]

    def is_old() -> bool:
        now = ticks(works), path.stat().st_mtime_ns
        if now[1] != looks[-1][1]:
            looks[:] = [now]
        return now[0] >= looks[-1][0] + 4  # the first may have been under way

    await_true(is_old)


def ticks(works: Works) -> int:
    return (works.folder / "ticks").stat().st_size if (works.folder / "ticks").exists() else 0


#: A parent that also notes each time that it looks at everything.
TICKING = f"""{SOON}
from kqueue.worker import supervisor
before = supervisor.is_alive
def is_alive(silences):
    with open("ticks", "a") as file:
        file.write(".")
    return before(silences)
supervisor.is_alive = is_alive
"""
