"""Figures of the whole worker: differences between two samples, tables, and the section of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.bench import report
from tests.bench.e2e_answers import QUANTILES
from tests.load.rig import TICKS_PER_S, Sample, p_ms

Row = report.Row
Table = tuple[list[str], list[list[Any]]]

WORKER = "w0"
OUTSIDE = ("step", "acknowledge", "commit")
"""Stages outside the step; all other stages run inside a step, on the shard's thread."""
LEAST_US = 0.5
"""Threads that use less than this for an event are left out of the course of a long run."""
WAITED = ("ingest: acknowledge", "acknowledge")
"""Stages that wait for Kafka: they use no core."""


@dataclass(frozen=True)
class Moment:
    """A sample, with the processor seconds of the whole machine and of the feeder up to then."""

    sample: Sample
    busy_s: float
    feeder_s: float


def machine_busy_s(stat: Path = Path("/proc/stat")) -> float:
    """Seconds that all cores of this machine together were busy since it booted."""
    fields = [int(text) for text in stat.read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / TICKS_PER_S


def stages(work: Mapping[str, float]) -> dict[str, float]:
    """Seconds by stage from the growth of a worker's histograms; `thread` is the part of a step in no other stage."""
    prefix = "batch_seconds_sum "
    batch = {name.removeprefix(prefix): value for name, value in work.items() if name.startswith(prefix)}
    inside = {stage: value for stage, value in batch.items() if stage not in OUTSIDE}
    found = {f"ingest: {stage}": work.get(f"ingest_seconds_sum {stage}", 0.0) for stage in ("decode", "acknowledge")}
    # A step is timed outside its thread: the rest is the way to the thread and back.
    thread = max(0.0, batch.get("step", 0.0) - sum(inside.values()))
    return {**found, **inside, "thread": thread, **{stage: batch.get(stage, 0.0) for stage in OUTSIDE[1:]}}


def threads(work: Mapping[str, float]) -> dict[str, float]:
    """Processor seconds by thread of the worker; threads that used none are left out."""
    prefix = "thread_cpu_seconds_total "
    found = {name.removeprefix(prefix): value for name, value in work.items() if name.startswith(prefix)}
    return {name: value for name, value in sorted(found.items(), key=lambda item: -item[1]) if value}


def figures(first: Moment, last: Moment) -> Row:
    """Figures between two moments: events per second, cost per event, and seconds by stage and thread."""
    earlier, later = first.sample, last.sample
    seconds, events = later.at_s - earlier.at_s, later.done - earlier.done
    work = {name: value - earlier.work.get(name, 0.0) for name, value in later.work.items()}
    cpu_s = {name: later.cpu_s[name] - earlier.cpu_s[name] for name in later.cpu_s if name in earlier.cpu_s}
    cpu_s["feeder"] = last.feeder_s - first.feeder_s
    batches = work.get("batch_mutations_count", 0.0)
    per_event = 1e6 / events if events else 0.0
    return {
        "seconds": round(seconds, 1),
        "events": events,
        "events_per_s": round(events / seconds, 1),
        "mean_batch": round(work.get("batch_mutations_sum", 0.0) / batches, 1) if batches else None,
        "scores_per_event": round(work.get("scores_total", 0.0) / events, 2) if events else None,
        "cpu_us_per_event": {name: round(value * per_event, 1) for name, value in cpu_s.items()},
        "cores": {name: round(value / seconds, 3) for name, value in cpu_s.items()},
        "others_cores": round(max(0.0, last.busy_s - first.busy_s - sum(cpu_s.values())) / seconds, 2),
        "stage_us_per_event": {name: round(value * per_event, 2) for name, value in stages(work).items()},
        "stage_share": {name: round(value / seconds, 4) for name, value in stages(work).items()},
        "thread_us_per_event": {name: round(value * per_event, 2) for name, value in threads(work).items()},
        "thread_share": {name: round(value / seconds, 4) for name, value in threads(work).items()},
        "rss_mb": later.rss_mb,
    }


def freshness(first: Moment, last: Moment) -> list[float | None]:
    """Quantiles `QUANTILES` (ms) of the worker's own metric between two moments."""
    return [p_ms(last.sample, first.sample, q) for q in QUANTILES]


def until_done(moments: Sequence[Moment]) -> tuple[Moment, Moment]:
    """Return the first moment, and the first moment at which all events were processed.

    Raises:
        ValueError: nothing was processed.
    """
    last = next(one for one in moments if one.sample.done == moments[-1].sample.done)
    if last is moments[0]:
        raise ValueError("nothing was processed")
    return moments[0], last


def thirds(moments: Sequence[Moment]) -> Row:
    """Events per second and mean memory of the first and the last third, and the ratio last / first."""
    size = max(2, (len(moments) + 2) // 3)
    some = [moments[:size], moments[-size:]]
    rates, memory, nodes, by_thread = [], [], [], []
    for part in some:
        begin, end = part[0].sample, part[-1].sample
        rates.append(round((end.done - begin.done) / (end.at_s - begin.at_s), 1))
        memory.append({name: round(fmean(one.sample.rss_mb[name] for one in part), 1) for name in begin.rss_mb})
        nodes.append(sum(end.nodes.values()))
        by_thread.append(figures(part[0], part[-1])["thread_us_per_event"])
    return {
        "events_per_s": rates,
        "rate_ratio": round(rates[1] / rates[0], 3) if rates[0] else None,
        "rss_mb": memory,
        "memory_ratio": {name: round(memory[1][name] / memory[0][name], 3) for name in memory[0]},
        "nodes": nodes,
        "thread_us_per_event": by_thread,
    }


def slope(states: Sequence[Row]) -> float | None:
    """Bytes per additional follow: from the first two states with equal users and different follows."""
    for number, one in enumerate(states):
        for other in states[number + 1 :]:
            if one["users"] == other["users"] and one["follows"] != other["follows"]:
                difference = (other["rss_mb"] - one["rss_mb"]) * (1 << 20)
                return float(round(difference / (other["follows"] - one["follows"]), 1))
    return None


# Tables

COST = [
    "events/s", "mean batch", "scores/event", "worker µs/event", "broker µs/event", "feeder µs/event",
    "worker cores", "broker cores", "feeder cores", "others cores", "worker MB", "broker MB",
]  # fmt: skip


def cost(row: Row) -> list[Any]:
    """The cells of `COST`."""
    names = (WORKER, "broker", "feeder")
    return [
        row["events_per_s"], row["mean_batch"], row["scores_per_event"],
        *(row["cpu_us_per_event"][name] for name in names), *(row["cores"][name] for name in names),
        row["others_cores"], row["rss_mb"][WORKER], row["rss_mb"]["broker"],
    ]  # fmt: skip


def runs(found: Row) -> dict[str, Row]:
    """All measured runs of a worker, by their name in the tables."""
    named = {"backlog": found["throughput"]} if "throughput" in found else {}
    named |= {f"{row['rate']:,.0f}/s": row for row in found.get("freshness", {}).get("rates", ())}
    return named | ({"maximum": found["sustained"]} if "sustained" in found else {})


def cost_table(found: Row) -> Table:
    """Cost per event in each run."""
    return ["run", *COST], [[name, *cost(row)] for name, row in runs(found).items()]


def stage_table(found: Row) -> Table:
    """Microseconds per event and share of a core by stage, for each run."""
    return _by_run(found, "stage")


def thread_table(found: Row) -> Table:
    """Microseconds of processor per event and share of a core by thread of the worker, for each run."""
    return _by_run(found, "thread")


def _by_run(found: Row, what: str) -> Table:
    us_name, share_name = f"{what}_us_per_event", f"{what}_share"
    named = {name: row for name, row in runs(found).items() if us_name in row}
    names = list(dict.fromkeys(part for row in named.values() for part in row[us_name]))

    def cell(row: Row, part: str) -> str:
        us, share = row[us_name].get(part, 0.0), row[share_name].get(part, 0.0)
        return f"{report.number(us)} ({share:.1%})"

    rows = [[f"{part} (waits)" if part in WAITED else part, *(cell(row, part) for row in named.values())]
            for part in names]  # fmt: skip
    return [what, *named], rows


def freshness_table(found: Row) -> Table:
    """Quantiles by both measurements, at each rate."""
    names = [f"p{q * 100:g}" for q in QUANTILES]
    columns = ["rate", "done /s", *(f"{name} ms" for name in names), *(f"{name} ms by Kafka" for name in names)]
    rows = [
        [
            f"{row['rate']:,.0f}/s", row["events_per_s"], *row["freshness_ms"], *row["by_kafka_ms"],
            f"{row['answered']:,} of {row['asked']:,}", f"{row['in_flight']:,}",
        ]
        for row in found["rates"]
    ]  # fmt: skip
    return [*columns, "answered", "in flight at the end"], rows


def throughput_table(found: Row) -> Table:
    """Throughput of the worker and of its parts."""
    ceilings = found["ceilings"]
    rows = [
        ["whole worker", found["events_per_s"], ""],
        *([name, value, f"{value / found['events_per_s']:.1f} ×"] for name, value in ceilings.items()),
    ]
    return ["what", "events/s", "times the worker"], rows


def start_table(found: Row) -> Table:
    """Seconds to /readyz and memory, by size of the state."""
    rows = [
        [
            f"{row['users']:,}", f"{row['follows']:,}", row["ready_s"], row["rss_mb"], row["bytes_per_user"],
            ", ".join(f"{what} {seconds:.1f}" for what, seconds in row["phases"].items()),
        ]
        for row in found["states"]
    ]  # fmt: skip
    return ["users", "follows", "s to /readyz", "MB", "bytes/user", "seconds by phase"], rows


def sustained_table(found: Row) -> Table:
    """Figures of the first and the last third, and the ratio last / first."""
    parts = found["thirds"]
    rows = [["events/s", *parts["events_per_s"], parts["rate_ratio"]]]
    rows += [
        [f"{name} MB", *(memory[name] for memory in parts["rss_mb"]), parts["memory_ratio"][name]]
        for name in parts["memory_ratio"]
    ]
    rows.append(["nodes", *parts["nodes"], round(parts["nodes"][1] / max(1, parts["nodes"][0]), 3)])
    first, last = parts.get("thread_us_per_event", ({}, {}))
    rows += [
        [f"{name}, processor µs/event", us, last.get(name, 0.0), round(last.get(name, 0.0) / us, 3)]
        for name, us in first.items()
        if us >= LEAST_US
    ]
    return ["what", "first third", "last third", "last / first"], rows


TABLES = {
    "throughput": throughput_table,
    "freshness": freshness_table,
    "sustained": sustained_table,
    "start": start_table,
}
"""The table of each part; `cost_table`, `stage_table` and `thread_table` span all parts."""


def ran_on(part: Row) -> str:
    """A sentence on the machine of a part and on its other load."""
    on = part["machine"]
    others = part.get("others_cores")
    also = "" if others is None else f"; other processes used {others} of its cores meanwhile"
    busy = on["load"] > 0.5 * on["cores"] or (others or 0.0) > 0.1 * on["cores"]
    quiet = ": **the machine was not idle, compare ratios rather than times**" if busy else ""
    return (
        f"{part['what']}; {on['cpu']}, {on['cores']} cores for worker, broker and feeder; "
        f"Python {on['python']}, numba {on['numba']}, "
        f"rocksdict {on['rocksdict']}, aiokafka {on['aiokafka']}; {on['when']}, load {on['load']} at the start{also}"
        f"{quiet}."
    )


def page(found: Row, template: str, note: str) -> str:
    """The section: the template filled with its tables; a part without results reads "Not run yet."."""
    for name, table in TABLES.items():
        part = found.get(name)
        text = "Not run yet." if part is None else f"{ran_on(part)}\n\n{report.markdown(*table(part))}"
        template = template.replace(f"<{name.upper()}>", text)
    for name, wide in (("COST", cost_table), ("STAGES", stage_table), ("THREADS", thread_table)):
        template = template.replace(f"<{name}>", report.markdown(*wide(found)) if runs(found) else "Not run yet.")
    slope_text = found.get("start", {}).get("bytes_per_edge")
    template = template.replace("<SLOPE>", "not measured" if slope_text is None else f"{slope_text:,.1f} bytes")
    return template.replace("<NOTE>", note).strip()
