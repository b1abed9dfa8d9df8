"""Draw the figures: ``python -m bench.plots``, or ``make bench-plots``.

From ``bench/results/*.json`` to ``bench/plots/*.svg``, one for each result that there is.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.figures import Findings, Table, from_json
from bench.readme import BENCH, RESULTS

PLOTS = BENCH / "plots"

#: KQueue, peers, and the bare loops that bound both.
OURS, OTHERS, BOUND = "#1f6f8b", "#b8b8b8", "#e0a458"
INCHES = (9.0, 5.0)


def peers(findings: Findings) -> Figure:
    """Throughput beside other queues, durable and not."""
    return _bars(findings.tables[0], "Add, run and delete: jobs a second, one worker process")


def peers_wait(findings: Findings) -> Figure:
    """The part of the ideal beside other queues, one chart for each number of hands."""
    figure = Figure(
        figsize=(INCHES[0], 0.28 * sum(len(one.rows) + 3 for one in findings.tables)), layout="constrained"
    )
    charts = figure.subplots(len(findings.tables), 1)
    for axes, table in zip(charts, findings.tables, strict=True):
        names = [f"{row.name} ({row.note})" for row in table.rows]
        _draw_bars(axes, names, [row.median for row in table.rows], [_colour_of(name) for name in names], "{:.2f}")
        axes.set_xlim(0, 1)
        axes.set_title(f"{table.title}: part {table.unit}", fontsize="medium", loc="left")
    return figure


def throughput(findings: Findings) -> Figure:
    """Throughput beside the bare loop."""
    return _bars(findings.tables[0], "Add, then run and delete: jobs a second")


def growth(findings: Findings) -> Figure:
    """Rate against backlog."""
    figure, axes = _figure("Jobs a second by the jobs that wait")
    plain = [row for row in findings.tables[0].rows if "beside" not in row.name]
    points = sorted((int(row.name.split()[0].replace(",", "")), row) for row in plain)
    sizes, rows = [size for size, _ in points], [row for _, row in points]
    medians = [row.median for row in rows]
    below = [row.median - min(row.values) for row in rows]
    above = [max(row.values) - row.median for row in rows]
    axes.errorbar(sizes, medians, yerr=[below, above], marker="o", color=OURS, capsize=4)
    for row in findings.tables[0].rows:
        if "beside" in row.name:
            axes.axhline(row.median, color=BOUND, linestyle="--", label=row.name)
            axes.legend(loc="lower left")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("jobs waiting")
    return figure


def pickup(findings: Findings) -> Figure:
    """The latency of every job: the share that had started by each time."""
    figure, axes = _figure("From add_job to the handler's start: share of jobs that have started")
    for row in findings.details[0].rows:
        ordered = sorted(row.values)
        shares = [(number + 1) / len(ordered) for number in range(len(ordered))]
        axes.step(ordered, shares, where="post", color=_colour_of(row.name), label=row.name, **_dashed(row.name))
    axes.set_xscale("log")
    axes.set_xlabel("ms")
    axes.legend(loc="lower right")
    return figure


def levers(findings: Findings) -> Figure:
    """What each lever brought, one chart for each table."""
    figure = Figure(figsize=(INCHES[0], INCHES[1] * 1.8), layout="constrained")
    charts = figure.subplots(len(findings.tables), 1, height_ratios=[len(one.rows) for one in findings.tables])
    for axes, table in zip(charts, findings.tables, strict=True):
        ratios = [table.ratio(row.name, table.rows[0].name) for row in table.rows]
        _draw_bars(axes, [row.name for row in table.rows], ratios, [OURS] * len(ratios), "{:.2f}")
        axes.set_title(f"{table.title} (ratio to the first)", fontsize="medium", loc="left")
    return figure


DRAW: dict[str, Callable[[Findings], Figure]] = {
    "peers": peers,
    "peers_wait": peers_wait,
    "throughput": throughput,
    "growth": growth,
    "pickup": pickup,
    "levers": levers,
}


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _bars(table: Table, title: str) -> Figure:
    figure, axes = _figure(title)
    names = [f"{row.name}\n{row.note}" if row.note else row.name for row in table.rows]
    colours = [_colour_of(row.name) for row in table.rows]
    _draw_bars(axes, names, [row.median for row in table.rows], colours, "{:,.0f}")
    figure.set_figheight(max(2.5, 0.5 * len(names) + 0.8))
    return figure


def _draw_bars(axes: Axes, names: list[str], values: list[float], colours: list[str], form: str) -> None:
    bars = axes.barh(names, values, color=colours)
    axes.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.tick_params(labelsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def _colour_of(name: str) -> str:
    if name.startswith("KQueue"):
        return OURS
    return BOUND if name.startswith("bare") else OTHERS


def _dashed(name: str) -> dict[str, Any]:
    """KQueue alone is told from KQueue with a beanstalkd."""
    return {"linestyle": "--"} if "alone" in name else {}


def main(results: Path = RESULTS, plots: Path = PLOTS) -> None:
    """Draw what there is."""
    mpl.rcParams["svg.hashsalt"] = "kqueue"  # the same figures make the same file
    plots.mkdir(exist_ok=True)
    for name, draw in DRAW.items():
        path = results / f"{name}.json"
        if path.exists():
            figure = draw(from_json(json.loads(path.read_text())))
            figure.savefig(plots / f"{name}.svg", metadata={"Date": None})
            print(f"drew {name}.svg")
        else:
            print(f"no {name}.json: not measured yet")


if __name__ == "__main__":
    main()
