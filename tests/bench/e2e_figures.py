"""What the figures of a whole worker are made of: differences between two samples, tables, a section of the page."""

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
"""All other stages are inside a step, on the shard's thread."""
WAITED = ("ingest: acknowledge", "acknowledge")
"""In these Kafka is waited for, so they are no work of a core."""


@dataclass(frozen=True)
class Moment:
    """A sample, with what all processes of the machine together took of its cores until then, and the feeder."""

    sample: Sample
    busy_s: float
    feeder_s: float


def machine_busy_s(stat: Path = Path("/proc/stat")) -> float:
    """Seconds that the cores of this machine were not idle, all together, since it began."""
    fields = [int(text) for text in stat.read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / TICKS_PER_S


def stages(work: Mapping[str, float]) -> dict[str, float]:
    """Seconds by stage from what a worker's histograms grew by; what is in no stage of a step is `thread`."""
    prefix = "batch_seconds_sum "
    batch = {name.removeprefix(prefix): value for name, value in work.items() if name.startswith(prefix)}
    inside = {stage: value for stage, value in batch.items() if stage not in OUTSIDE}
    found = {f"ingest: {stage}": work.get(f"ingest_seconds_sum {stage}", 0.0) for stage in ("decode", "acknowledge")}
    # A step is timed from outside its thread, so this is the way there and back.
    thread = max(0.0, batch.get("step", 0.0) - sum(inside.values()))
    return {**found, **inside, "thread": thread, **{stage: batch.get(stage, 0.0) for stage in OUTSIDE[1:]}}


def figures(first: Moment, last: Moment) -> Row:
    """What happened between two moments: events per second, what they cost, and where the time went."""
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
        "rss_mb": later.rss_mb,
    }


def freshness(first: Moment, last: Moment) -> list[float | None]:
    """The worker's own quantiles (ms) between two moments, at `QUANTILES`."""
    return [p_ms(last.sample, first.sample, q) for q in QUANTILES]


def until_done(moments: Sequence[Moment]) -> tuple[Moment, Moment]:
    """The first moment, and the first of those after which nothing was left to be done.

    Raises:
        ValueError: nothing was done.
    """
    last = next(one for one in moments if one.sample.done == moments[-1].sample.done)
    if last is moments[0]:
        raise ValueError("nothing was done")
    return moments[0], last


def thirds(moments: Sequence[Moment]) -> Row:
    """Events per second and mean memory in the first and in the last third, and the last as a part of the first."""
    size = max(2, (len(moments) + 2) // 3)
    some = [moments[:size], moments[-size:]]
    rates, memory, nodes = [], [], []
    for part in some:
        begin, end = part[0].sample, part[-1].sample
        rates.append(round((end.done - begin.done) / (end.at_s - begin.at_s), 1))
        memory.append({name: round(fmean(one.sample.rss_mb[name] for one in part), 1) for name in begin.rss_mb})
        nodes.append(sum(end.nodes.values()))
    return {
        "events_per_s": rates,
        "rate_ratio": round(rates[1] / rates[0], 3) if rates[0] else None,
        "rss_mb": memory,
        "memory_ratio": {name: round(memory[1][name] / memory[0][name], 3) for name in memory[0]},
        "nodes": nodes,
    }


def slope(states: Sequence[Row]) -> float | None:
    """Bytes of a further follow: by the first two states with as many users and another number of follows."""
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
    """Everything that was measured of a worker at work, by its name in the tables."""
    named = {"backlog": found["throughput"]} if "throughput" in found else {}
    named |= {f"{row['rate']:,.0f}/s": row for row in found.get("freshness", {}).get("rates", ())}
    return named | ({"maximum": found["sustained"]} if "sustained" in found else {})


def cost_table(found: Row) -> Table:
    """What an event costs in each run."""
    return ["run", *COST], [[name, *cost(row)] for name, row in runs(found).items()]


def stage_table(found: Row) -> Table:
    """Microseconds per event and the share of a core, by stage, for each run."""
    named = runs(found)
    names = list(dict.fromkeys(stage for row in named.values() for stage in row["stage_us_per_event"]))

    def cell(row: Row, stage: str) -> str:
        us, share = row["stage_us_per_event"].get(stage, 0.0), row["stage_share"].get(stage, 0.0)
        return f"{report.number(us)} ({share:.1%})"

    rows = [[f"{stage} (waits)" if stage in WAITED else stage, *(cell(row, stage) for row in named.values())]
            for stage in names]  # fmt: skip
    return ["stage", *named], rows


def freshness_table(found: Row) -> Table:
    """Quantiles of both ways of measuring, at each rate."""
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
    """The worker and its ceilings."""
    ceilings = found["ceilings"]
    rows = [
        ["whole worker", found["events_per_s"], ""],
        *([name, value, f"{value / found['events_per_s']:.1f} ×"] for name, value in ceilings.items()),
    ]
    return ["what", "events/s", "of the worker"], rows


def start_table(found: Row) -> Table:
    """Seconds to /readyz and memory by size of the state."""
    rows = [
        [
            f"{row['users']:,}", f"{row['follows']:,}", row["ready_s"], row["rss_mb"], row["bytes_per_user"],
            ", ".join(f"{what} {seconds:.1f}" for what, seconds in row["phases"].items()),
        ]
        for row in found["states"]
    ]  # fmt: skip
    return ["users", "follows", "s to /readyz", "MB", "bytes/user", "seconds of what"], rows


def sustained_table(found: Row) -> Table:
    """First and last third, and the last as a part of the first."""
    parts = found["thirds"]
    rows = [["events/s", *parts["events_per_s"], parts["rate_ratio"]]]
    rows += [
        [f"{name} MB", *(memory[name] for memory in parts["rss_mb"]), parts["memory_ratio"][name]]
        for name in parts["memory_ratio"]
    ]
    rows.append(["nodes", *parts["nodes"], round(parts["nodes"][1] / max(1, parts["nodes"][0]), 3)])
    return ["what", "first third", "last third", "last / first"], rows


TABLES = {
    "throughput": throughput_table,
    "freshness": freshness_table,
    "sustained": sustained_table,
    "start": start_table,
}
"""Of each part its own table; `cost_table` and `stage_table` are of all of them."""


def ran_on(part: Row) -> str:
    """A sentence on the machine of a part, and on what else ran."""
    on = part["machine"]
    others = part.get("others_cores")
    also = "" if others is None else f"; others took {others} of its cores meanwhile"
    busy = on["load"] > 0.5 * on["cores"] or (others or 0.0) > 0.1 * on["cores"]
    quiet = ": **not a quiet machine, take the ratios rather than the times**" if busy else ""
    return (
        f"{part['what']}; {on['cpu']}, {on['cores']} cores for worker, broker and feeder; "
        f"Python {on['python']}, numba {on['numba']}, "
        f"rocksdict {on['rocksdict']}, aiokafka {on['aiokafka']}; {on['when']}, load {on['load']} when it began{also}"
        f"{quiet}."
    )


def page(found: Row, template: str, note: str) -> str:
    """The section: the template with its tables; what was not measured says so."""
    for name, table in TABLES.items():
        part = found.get(name)
        text = "Not run yet." if part is None else f"{ran_on(part)}\n\n{report.markdown(*table(part))}"
        template = template.replace(f"<{name.upper()}>", text)
    for name, wide in (("COST", cost_table), ("STAGES", stage_table)):
        template = template.replace(f"<{name}>", report.markdown(*wide(found)) if runs(found) else "Not run yet.")
    slope_text = found.get("start", {}).get("bytes_per_edge")
    template = template.replace("<SLOPE>", "not measured" if slope_text is None else f"{slope_text:,.1f} bytes")
    return template.replace("<NOTE>", note).strip()
