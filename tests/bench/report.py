"""Benchmark results as a table on the terminal, as JSON, as a plot, and as docs/benchmarks.md."""

from __future__ import annotations

import io
import json
import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.support import tidy

BUILD = tidy.ROOT / "build"
DOCS = tidy.ROOT / "docs"
PAGE, PLOT, GROWTH = "benchmarks.md", "benchmarks.svg", "benchmarks-growth.svg"
WORKER = "## The whole worker"
"""The section of the page that `tests.bench.e2e` writes."""

ENGINE, STORED, FULL, AFFECTED, FLOOR = "engine", "engine + RocksDB", "full pass", "affected only", "floor"
"""The layers of a result row. `tests.bench.e2e` measures the whole worker."""

Row = dict[str, Any]
_COLOURS = ("#1b6ca8", "#c8553d", "#588157", "#8e5ea2", "#d19a1c", "#3a3a3a", "#2a9d8f", "#7f5539")


def machine() -> dict[str, Any]:
    """The machine and versions of this run; load: mean number of runnable processes in the last minute."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0] if models else name
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "torch_geometric", "numba", "rocksdict")},
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def save(name: str, found: Any, folder: Path = BUILD) -> Path:
    """Write JSON under build/."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return path


def read(name: str, folder: Path = BUILD) -> Any:
    """Read what `save` wrote; None if the file does not exist."""
    path = folder / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def number(value: float | None) -> str:
    """Format a figure with its significant digits."""
    if value is None:
        return "–"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.3g}"


def print_table(title: str, columns: list[str], rows: list[list[Any]], console: Console | None = None) -> None:
    """Print a table on the terminal; texts to the left, numbers to the right."""
    table = Table(title=title, title_justify="left")
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if rows and isinstance(rows[0][at], str) else "right")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, str) else number(cell) for cell in row))
    (console or Console(width=132)).print(table)


def markdown(columns: list[str], rows: list[list[Any]]) -> str:
    """The same table as Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell if isinstance(cell, str) else number(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


RATIOS = [
    "workload", "batch", "engine /s", "p50 ms", "+ RocksDB /s", "p50 ms", "max ms",
    "× full pass", "× affected only", "floor /s", "max error",
]  # fmt: skip


def ratios(rows: list[Row]) -> list[list[Any]]:
    """One line per workload and batch size, for `RATIOS`."""
    cells: dict[tuple[str, int], dict[str, Row]] = {}
    for row in rows:
        cells.setdefault((row["workload"], row["batch"]), {})[row["layer"]] = row
    return [
        [
            workload, f"{batch:,}",
            layers[ENGINE]["updates_per_s"], layers[ENGINE]["p50_ms"],
            layers[STORED]["updates_per_s"], layers[STORED]["p50_ms"], layers[STORED]["max_ms"],
            layers[ENGINE]["over_full"], layers[ENGINE]["over_affected"],
            layers[FLOOR]["updates_per_s"] if FLOOR in layers else None, layers[ENGINE]["max_abs_error"],
        ]
        for (workload, batch), layers in cells.items()
    ]  # fmt: skip


SUMMARY = ["events in a step", "events/s", "median step, ms", "× full pass"]


def summary(rows: list[Row]) -> list[list[Any]]:
    """A line for each batch size, for `SUMMARY`: the least and the largest figure of all workloads, with RocksDB."""
    sizes: dict[str, list[list[Any]]] = {}
    for line in ratios(rows):
        sizes.setdefault(line[1], []).append(line)
    figures = [RATIOS.index("+ RocksDB /s"), RATIOS.index("+ RocksDB /s") + 1, RATIOS.index("× full pass")]
    return [[size, *(_range([line[figure] for line in lines]) for figure in figures)] for size, lines in sizes.items()]


def _range(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{number(min(known))} to {number(max(known))}" if known else number(None)


def stage_table(stages: list[Row]) -> tuple[list[str], list[list[Any]]]:
    """Milliseconds of a step by stage, and the recomputed rows of each layer."""
    names = list(dict.fromkeys(name for row in stages for name in row["ms"]))
    columns = ["workload", "batch", *names, "rows 1", "rows 2"]
    return columns, [
        [row["workload"], f"{row['batch']:,}", *(row["ms"].get(name, 0.0) for name in names), *row["frontier"]]
        for row in stages
    ]


def processor_table(stages: list[Row]) -> tuple[list[str], list[list[Any]]]:
    """Microseconds of processor time per event by stage and in all."""
    names = list(dict.fromkeys(name for row in stages for name in row["processor_us"]))
    return ["workload", "batch", *names, "all"], [
        [
            row["workload"], f"{row['batch']:,}",
            *(row["processor_us"].get(name, 0.0) for name in names), sum(row["processor_us"].values()),
        ]
        for row in stages
    ]  # fmt: skip


def plot(rows: list[Row]) -> str:
    """Plot updates per second against batch size as SVG; a line per workload, dashed with RocksDB."""
    shown = [row for row in rows if row["layer"] in {ENGINE, STORED}]
    lines: list[Line] = []
    for workload in dict.fromkeys(row["workload"] for row in shown):
        for layer in (ENGINE, STORED):
            line = [row for row in shown if (row["workload"], row["layer"]) == (workload, layer)]
            points = [(row["batch"], row["updates_per_s"]) for row in line]
            lines.append((workload, layer, points))
    title = "Updates per second by size of micro-batch (dashed: with RocksDB)"
    return _svg(lines, title, "updates per micro-batch")


def growth_plot(rows: list[Row]) -> str:
    """Plot updates per second against the number of users as SVG, at one window; dashed with RocksDB."""
    shown = [row for row in rows if row["window"] == rows[0]["window"]]
    columns = ((ENGINE, "engine /s"), (STORED, "+ RocksDB /s"))
    lines = [(rows[0]["workload"], layer, [(row["users"], row[column]) for row in shown]) for layer, column in columns]
    degree = rows[0]["follows"] // rows[0]["users"]
    return _svg(lines, f"Updates per second by users, {degree} follows each (dashed: with RocksDB)", "users")


Line = tuple[str, str, list[tuple[float, float]]]
"""Workload, layer, and points."""


def _svg(lines: list[Line], title: str, label: str) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text stays text and ids are fixed, so that the file is small and changes only with the figures.
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "bench", "axes.prop_cycle": mpl.cycler(color=_COLOURS)}
    ):
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.subplots()
        for workload, layer, points in lines:
            axes.plot(
                [point[0] for point in points],
                [point[1] for point in points],
                "-" if layer == ENGINE else "--",
                marker=".",
                color=None if layer == ENGINE else axes.lines[-1].get_color(),
                label=workload if layer == ENGINE else None,
                gid=f"{workload}: {layer}",
            )
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="updates per second")
        axes.set_title(title, loc="left")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(visible=True, axis="y", color="#ddd")
        figure.legend(loc="outside right upper", frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return re.sub(r"[ \t]+$", "", out.getvalue(), flags=re.MULTILINE)


def ran_on(about: dict[str, Any]) -> str:
    """A sentence on the machine of a run."""
    on = about["machine"]
    busy = "" if on["load"] <= 0.5 * on["cores"] else ": **the machine was not idle, compare ratios rather than times**"
    return (
        f"{on['cpu']}, {on['cores']} cores, {about['threads']} thread(s) for the measured code; Python {on['python']}, "
        f"torch {on['torch']}, torch_geometric {on['torch_geometric']}, numba {on['numba']}, "
        f"rocksdict {on['rocksdict']}; "
        f"{on['when']}, load {on['load']} at the start{busy}."
    )


def write_docs(build: Path = BUILD, docs: Path = DOCS, note: str = "") -> None:
    """Write the page and its plot from the results in build/; note: a sentence on the circumstances."""
    rows, about = read("bench.json", build), read("bench-about.json", build)
    text = (Path(__file__).parent / "page.md").read_text(encoding="utf-8")
    size = about["size"]
    parts = {
        "SIZE": f"{size['users']:,} users and {size['follows']:,} follows",
        "MACHINE": ran_on(about),
        "SUMMARY": markdown(SUMMARY, summary(rows)),
        "RATIOS": markdown(RATIOS, ratios(rows)),
        "STAGES": markdown(*stage_table(about["stages"])),
        "PROCESSOR": markdown(*processor_table(about["stages"])),
        "NOTE": note,
        "MISSING": " ".join(f"Not measured, the file does not exist: {name}." for name in about["missing"]),
        "FURTHER": "\n\n".join(_further(build)) or "Not run yet.",
    }
    for name, part in parts.items():
        text = text.replace(f"<{name}>", part)
    before = (docs / PAGE).read_text(encoding="utf-8") if (docs / PAGE).exists() else ""
    text = with_section(text, section(before) or "Not run yet.")
    (docs / PAGE).write_text(text, encoding="utf-8")
    (docs / PLOT).write_text(plot(rows), encoding="utf-8")
    grown = read("bench-growth.json", build)
    if grown is not None:
        (docs / GROWTH).write_text(growth_plot(grown["rows"]), encoding="utf-8")


def section(page: str) -> str:
    """The text of a page under `WORKER`, without the heading; empty if there is none."""
    found = re.search(rf"^{re.escape(WORKER)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def with_section(page: str, text: str) -> str:
    """The page with this text under `WORKER`, appended if the page has no such section."""
    old = section(page)
    if WORKER not in page.splitlines():
        return f"{page.rstrip()}\n\n{WORKER}\n\n{text.strip()}\n"
    before, after = page.split(f"{WORKER}\n", 1)
    rest = after.strip().removeprefix(old).strip()
    return f"{before}{WORKER}\n\n{text.strip()}\n" + (f"\n{rest}\n" if rest else "")


def _further(build: Path) -> list[str]:
    """The tables of the further runs that have results."""
    titles = {
        "exact": "`--exact`: largest absolute difference of any embedding or score from the network in float64; beside "
        "it that of PyTorch Geometric in float32.",
        "growth": "`--growth`: throughput by the number of users at constant mean degree, and by the window (0: all).",
        "hubs": "`--hubs`: whole steps of `celebrity` with RocksDB; 0 rows per step: no reader is deferred.",
        "memory": "`--memory`: resident memory.",
        "opponent": "`make bench-opponent`: the follow stream of `flat` in the shard and in Pathway.",
    }
    found = []
    for name, title in titles.items():
        one = read(f"bench-{name}.json", build)
        if one is not None:
            table = markdown(list(one["rows"][0]), [list(row.values()) for row in one["rows"]])
            size = "{users:,} users and {follows:,} follows".format(**one["about"]["size"])
            picture = f"\n\n![Throughput by number of users]({GROWTH})" if name == "growth" else ""
            found.append(f"{title} {size}, unless stated otherwise; {ran_on(one['about'])}\n\n{table}{picture}")
    return found
