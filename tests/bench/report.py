"""What is shown of the measurements: a table, build/bench.json, a plot, and docs/benchmarks.md."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.cells import AFFECTED, ENGINE, FLOOR, FULL, WITH_STORE, Measured, Row, as_json

_COLOURS = ("#0b7285", "#e8590c", "#5f3dc4", "#2b8a3e", "#c2255c", "#868e96", "#f08c00")
BEGIN, END = "<!-- measured -->", "<!-- end -->"


def kept(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Rows with those of other workloads that a file already has."""
    if not path.is_file():
        return list(rows)
    new = {row.workload for row in rows}
    return [row for row in load(path) if row.workload not in new] + list(rows)


def load(path: Path) -> list[Row]:
    """The rows of a file that `save` wrote."""
    return [Row(**found) for found in json.loads(path.read_text(encoding="utf-8"))]


def save(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as a list of objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(rows), indent=1) + "\n", encoding="utf-8")


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


_HEAD = ("workload", "batch", "engine\nupdates/s", "p50 ms", "over full\npass", "over affected\n-only",
         "+ RocksDB\nupdates/s", "p50 ms", "of the\nfloor", "error")  # fmt: skip


def lines(rows: Sequence[Row]) -> Iterable[tuple[str, ...]]:
    """A line of text per workload and batch size, as `_HEAD` says."""
    by = {(row.workload, row.batch, row.layer): row for row in rows}
    for workload, batch in dict.fromkeys((row.workload, row.batch) for row in rows):
        engine, whole = by[workload, batch, ENGINE], by[workload, batch, WITH_STORE]
        bare = by.get((workload, batch, FLOOR))
        share = None if bare is None else bare.updates_per_s / whole.updates_per_s
        yield (
            workload, f"{batch:,}", _short(engine.updates_per_s), _short(engine.p50_ms), _times(engine.over_full),
            _times(engine.over_affected), _short(whole.updates_per_s), _short(whole.p50_ms),
            "–" if share is None else f"1/{share:.0f}",
            "–" if engine.max_abs_error is None else f"{engine.max_abs_error:.0e}",
        )  # fmt: skip


def _times(value: float | None) -> str:
    return "–" if value is None else f"{_short(value)}×"


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table(*_HEAD, title="Ratios are of this run: one thread, medians")
    for column in table.columns[1:]:
        column.justify = "right"
    for line in lines(rows):
        table.add_row(*line, end_section=line[1] == "10,000")
    console.print(table)


def show_stages(console: Console, measured: Sequence[Measured]) -> None:
    """Print the median microseconds per event of each stage, the rows that each layer recomputed, and scores published."""
    names = list(dict.fromkeys(name for one in measured for cell in one.cells for name in cell.stages()))
    table = Table("workload", "batch", *names, "rows 1", "rows 2", "scores", title="µs per event by stage; rows per batch")
    for column in table.columns[1:]:
        column.justify = "right"
    for one in measured:
        for cell in one.cells:
            stages = cell.stages()
            cells = [_short(stages.get(name, 0.0) / cell.batch * 1e6) for name in names]
            middle = len(cell.frontiers) // 2
            rows = [sorted(frontier[layer] for frontier in cell.frontiers)[middle] for layer in (0, 1)]
            counts = (*rows, sorted(cell.published)[middle])
            table.add_row(one.workload, f"{cell.batch:,}", *cells, *(f"{count:,}" for count in counts))
    console.print(table)


# The plot


def plot(rows: Sequence[Row]) -> str:
    """An SVG: updates per second over batch size, both axes logarithmic, a panel per layer."""
    workloads = list(dict.fromkeys(row.workload for row in rows))
    own = [row for row in rows if row.layer in {ENGINE, WITH_STORE}]
    top = math.ceil(math.log10(max(row.updates_per_s for row in own)))
    low = math.floor(math.log10(min(row.updates_per_s for row in own)))
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 400" font-family="sans-serif" font-size="12">',
        '<rect width="960" height="400" fill="white"/>',
    ]
    for number, layer in enumerate((ENGINE, WITH_STORE)):
        parts += _panel(60 + 400 * number, layer, [row for row in own if row.layer == layer], workloads, (low, top))
    for number, workload in enumerate(workloads):
        y = 60 + 22 * number
        parts.append(f'<path d="M850 {y}h24" stroke="{_colour(number)}" stroke-width="2"/>')
        parts.append(f'<text x="880" y="{y + 4}">{workload}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _panel(left: int, title: str, rows: Sequence[Row], workloads: list[str], decades: tuple[int, int]) -> list[str]:
    low, top = decades
    width, height, above = 340, 290, 50

    def at(batch: float, rate: float) -> tuple[float, float]:
        across, up = math.log10(batch) / 4, (math.log10(rate) - low) / (top - low)
        return round(left + width * across, 1), round(above + height * (1 - up), 1)

    parts = [f'<text x="{left}" y="34" font-weight="bold">{title}: updates/s by batch size</text>']
    for decade in range(low, top + 1):
        _, y = at(1, 10.0**decade)
        parts.append(f'<path d="M{left} {y}h{width}" stroke="#dee2e6"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{10**decade:,}</text>')
    for decade in range(5):
        x, y = at(10**decade, 10.0**low)
        parts.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{10**decade:,}</text>')
    for number, workload in enumerate(workloads):
        points = [at(row.batch, row.updates_per_s) for row in rows if row.workload == workload]
        path = " ".join(f"{x},{y}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{_colour(number)}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{_colour(number)}"/>' for x, y in points]
    return parts


# The page


def ran_on() -> str:
    """The machine and the versions, in a line."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "torch_geometric", "numba", "rocksdict"))
    return f"{cpu or platform.machine()}, {platform.system()}, Python {platform.python_version()}, {libraries}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def page(text: str, rows: Sequence[Row], note: str) -> str:
    """The text of docs/benchmarks.md with what stands between its two marks made anew."""
    if BEGIN not in text or END not in text:
        raise ValueError(f"the page has no {BEGIN} and {END}: put them back where the table belongs")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    head = [cell.replace("\n", " ") for cell in _HEAD]
    table = [head, ["---", *["--:"] * (len(head) - 1)], *lines(rows)]
    body = "\n".join("| " + " | ".join(line) + " |" for line in table)
    return f"{before}{BEGIN}\nRan on: {ran_on()}. {note}\n\n{body}\n\n{_opponents(rows)}\n{END}{after}"


def _opponents(rows: Sequence[Row]) -> str:
    """The opponents' own seconds, one line per workload."""
    found = []
    for workload in dict.fromkeys(row.workload for row in rows):
        some = [row for row in rows if row.workload == workload]
        full = next((row.p50_ms for row in some if row.layer == FULL), None)
        affected = {row.batch: row.p50_ms for row in some if row.layer == AFFECTED}
        bare = max((row.updates_per_s for row in some if row.layer == FLOOR), default=None)
        text = f"* `{workload}`: full pass {_short(full)} ms; floor at best {_short(bare)} events/s"
        if affected:
            text += "; affected-only " + ", ".join(f"{_short(ms)} ms for {batch:,}" for batch, ms in affected.items())
        found.append(text + ".")
    return "\n".join(found)

