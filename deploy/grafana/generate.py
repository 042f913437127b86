"""Write the dashboards of Grafana: overview, one worker, model and alerts.

python deploy/grafana/generate.py            writes deploy/grafana/dashboards/*.json
python deploy/grafana/generate.py --check    exits with 1 if a file differs
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import Dashboard as Model
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableRefresh

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
WIDTH, HEIGHT = 8, 8
ONE = 'job="groundswell",instance="$instance"'
ALL = 'job="groundswell"'
WINDOWS = ("5m", "1h", "6h", "3d")


class Panel(NamedTuple):
    """A graph: title, unit, and queries with their legends; a single number if `number`."""

    title: str
    unit: str
    queries: list[tuple[str, str]]
    number: bool = False
    about: str = ""


def quantiles(metric: str, matchers: str) -> list[tuple[str, str]]:
    """Return the median and the 99 % quantile of a histogram."""
    rate = f"sum by (le) (rate({metric}_bucket{{{matchers}}}[$__rate_interval]))"
    return [(f"histogram_quantile({part}, {rate})", f"{100 * part:g} %") for part in (0.5, 0.99)]


def rate(metric: str, matchers: str, by: str = "") -> str:
    """Return the rate of a counter, as a sum."""
    return f"sum{f' by ({by}) ' if by else ' '}(rate({metric}{{{matchers}}}[$__rate_interval]))"


def mean(metric: str, matchers: str, by: str) -> str:
    """Return the mean of a histogram."""
    return f"{rate(metric + '_sum', matchers, by)} / {rate(metric + '_count', matchers, by)}"


def hourly(metric: str, by: str = "") -> str:
    """Return the increase of a counter in an hour."""
    return f"sum{f' by ({by}) ' if by else ' '}(increase({metric}{{{ALL}}}[1h]))"


def gauge(over: str, metric: str, by: str) -> str:
    """Return a gauge over all workers."""
    return f"{over} by ({by}) ({metric}{{{ALL}}})"


BOARDS: dict[str, tuple[str, list[tuple[str, list[Panel]]]]] = {
    "overview": (
        "Groundswell: overview",
        [
            (
                "Objective: 99 % of events are scored within 1 s",
                [
                    Panel("Ready workers", "short", [(f"sum(groundswell_ready{{{ALL}}})", "ready")], number=True),
                    Panel(
                        "Late events, 1 h",
                        "percentunit",
                        [("groundswell:slow_events:ratio_rate1h", "later than 1 s")],
                        number=True,
                    ),
                    Panel("Shards with a worker", "short", [("groundswell:owned_shards:count", "shards")], number=True),
                    Panel("Freshness", "s", quantiles("groundswell_freshness_seconds", ALL)),
                    Panel(
                        "Burn rate of the error budget",
                        "short",
                        [
                            (f"groundswell:slow_events:ratio_rate{window} / 0.01", window)
                            for window in ("5m", "1h", "6h", "3d")
                        ],
                        about="1 uses the budget up in 30 days. Pages at 14.4 (1 h) and 6 (6 h).",
                    ),
                    Panel("Lag by topic", "short", [("groundswell:lag_records:sum", "{{topic}}")]),
                ],
            ),
            (
                "Traffic",
                [
                    Panel("Events", "ops", [(rate("groundswell_events_total", ALL, "type"), "{{type}}")]),
                    Panel(
                        "Refused and late events",
                        "ops",
                        [
                            (rate("groundswell_dead_letters_total", ALL), "dead letters"),
                            (rate("groundswell_mutations_total", 'job="groundswell",outcome="expired"'), "expired"),
                            (rate("groundswell_late_shares_total", ALL), "late shares"),
                        ],
                    ),
                    Panel(
                        "Published",
                        "ops",
                        [
                            (rate("groundswell_scores_total", ALL), "scores"),
                            (rate("groundswell_alerts_total", ALL), "alerts"),
                            (rate("groundswell_tombstones_total", ALL), "tombstones"),
                        ],
                    ),
                ],
            ),
            (
                "Graph and analyst",
                [
                    Panel("Live users", "short", [(f"sum(groundswell_live_users{{{ALL}}})", "users")]),
                    Panel("Nodes", "short", [(f"sum by (type) (groundswell_nodes{{{ALL}}})", "{{type}}")]),
                    Panel(
                        "Analyst: lag and age",
                        "short",
                        [
                            ("sum(groundswell_analyst_lag_records)", "records"),
                            ("max(groundswell_analyst_as_of_lag_seconds)", "seconds behind the clock"),
                        ],
                    ),
                ],
            ),
        ],
    ),
    "worker": (
        "Groundswell: one worker",
        [
            (
                "Steps",
                [
                    Panel("Ready", "short", [(f"groundswell_ready{{{ONE}}}", "ready")], number=True),
                    Panel(
                        "Seconds per second, by stage of a micro-batch",
                        "percentunit",
                        [(rate("groundswell_batch_seconds_sum", ONE, "stage"), "{{stage}}")],
                    ),
                    Panel(
                        "Seconds per second, by stage of ingest",
                        "percentunit",
                        [(rate("groundswell_ingest_seconds_sum", ONE, "stage"), "{{stage}}")],
                    ),
                    Panel("Mutations per micro-batch", "short", quantiles("groundswell_batch_mutations", ONE)),
                    Panel(
                        "Recomputed nodes per micro-batch, by layer",
                        "short",
                        [
                            (mean("groundswell_frontier_nodes", ONE, "layer"), "layer {{layer}}"),
                        ],
                    ),
                    Panel("Freshness", "s", quantiles("groundswell_freshness_seconds", ONE)),
                ],
            ),
            (
                "Kafka",
                [
                    Panel("Lag", "short", [(f"groundswell_lag_records{{{ONE}}}", "{{topic}} {{partition}}")]),
                    Panel("Rebalances", "s", quantiles("groundswell_rebalance_seconds", ONE)),
                    Panel(
                        "Halos and facts",
                        "binBps",
                        [
                            (rate("groundswell_halo_bytes_total", ONE), "halos"),
                            (rate("groundswell_fact_bytes_total", ONE), "facts"),
                        ],
                    ),
                ],
            ),
            (
                "Machine",
                [
                    Panel(
                        "Processor time, by thread",
                        "percentunit",
                        [(rate("groundswell_thread_cpu_seconds_total", ONE, "thread"), "{{thread}}")],
                    ),
                    Panel(
                        "Memory",
                        "bytes",
                        [
                            (f"groundswell_process_resident_memory_bytes{{{ONE}}}", "resident"),
                            (f"groundswell_device_memory_bytes{{{ONE}}}", "engine, {{device}}"),
                        ],
                    ),
                    Panel("RocksDB", "bytes", [(f"groundswell_rocksdb_bytes{{{ONE}}}", "{{kind}}")]),
                    Panel("Stalled shards", "short", [(f"groundswell_rocksdb_stalled{{{ONE}}}", "shards")]),
                    Panel(
                        "Checkpoints",
                        "s",
                        [(f"groundswell_checkpoint_age_seconds{{{ONE}}}", "age, shard {{shard}}")],
                        about="Empty without GROUNDSWELL_CHECKPOINTS.",
                    ),
                    Panel("Oldest forget", "s", [(f"groundswell_forget_waiting_seconds{{{ONE}}}", "waits")]),
                ],
            ),
        ],
    ),
    "quality": (
        "Groundswell: model and alerts",
        [
            (
                "Model",
                [
                    Panel("Artifact", "short", [(f"groundswell_model_info{{{ALL}}}", "{{version}}")], number=True),
                    Panel(
                        "Rank correlation of the newest closed posts",
                        "short",
                        [(f'avg by (scorer) (groundswell_live_spearman{{{ALL},authors="all"}})', "{{scorer}}")],
                    ),
                    Panel("Calibration error", "short", [(f"avg(groundswell_live_calibration_error{{{ALL}}})", "log")]),
                    Panel("Posts", "short", [(f"avg by (state) (groundswell_live_posts{{{ALL}}})", "{{state}}")]),
                    Panel(
                        "Decisions of the trainer",
                        "short",
                        [(f"max by (action) (groundswell_trainer_decisions{{{ALL}}})", "{{action}}")],
                    ),
                    Panel(
                        "Audit: largest error",
                        "short",
                        [(f"max(groundswell_audit_error{{{ALL}}})", "error")],
                        about="Below 1e-5 it is rounding of float32. Empty without GROUNDSWELL_AUDIT_SHARE.",
                    ),
                ],
            ),
            (
                "Alerts of users",
                [
                    Panel(
                        "Confirmed part of the newest alerts",
                        "percentunit",
                        [(f"avg by (rule) (groundswell_alert_precision{{{ALL}}})", "{{rule}}")],
                    ),
                    Panel(
                        "Alerts and outcomes",
                        "short",
                        [
                            (hourly("groundswell_alerts_total"), "alerts"),
                            (
                                f"sum by (outcome) (increase(groundswell_alert_outcomes_total{{{ALL}}}[1h]))",
                                "{{outcome}}",
                            ),
                        ],
                    ),
                    Panel(
                        "Breakouts without an alert, since the states began",
                        "short",
                        [(f'sum by (rule) (groundswell_alert_record{{{ALL},outcome="missed"}})', "{{rule}}")],
                    ),
                    Panel(
                        "Watermark behind the newest event",
                        "s",
                        [
                            (
                                f"max by (topic, partition) (groundswell_watermark_lag_seconds{{{ALL}}})",
                                "{{topic}} {{partition}}",
                            )
                        ],
                    ),
                    Panel(
                        "Boundaries wait for a shard",
                        "s",
                        [(f"max by (shard) (groundswell_alert_awaited_seconds{{{ALL}}})", "shard {{shard}}")],
                    ),
                    Panel(
                        "Shares by outcome",
                        "short",
                        [(gauge("sum", "groundswell_shares", "outcome"), "{{outcome}}")],
                    ),
                    Panel(
                        "Webhook",
                        "short",
                        [
                            (
                                f"sum by (outcome) (increase(groundswell_webhook_alerts_total{{{ALL}}}[1h]))",
                                "{{outcome}}",
                            )
                        ],
                    ),
                ],
            ),
        ],
    ),
}


def panel(made: Panel) -> stat.Panel | timeseries.Panel:
    """Build a panel."""
    builder: stat.Panel | timeseries.Panel
    builder = stat.Panel() if made.number else timeseries.Panel().legend(legend()).fill_opacity(10)
    builder = builder.title(made.title).unit(made.unit).datasource(SOURCE).span(WIDTH).height(HEIGHT)
    if made.about:
        builder = builder.description(made.about)
    for number, (query, legend_format) in enumerate(made.queries):
        builder = builder.with_target(
            prometheus.Dataquery().expr(query).legend_format(legend_format).ref_id(chr(ord("A") + number))
        )
    return builder


def legend() -> common.VizLegendOptions:
    """Return a legend below the graph."""
    return (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
    )


def board(name: str) -> Model:
    """Build a dashboard."""
    title, rows = BOARDS[name]
    builder = (
        dashboard.Dashboard(title)
        .uid(f"groundswell-{name}")
        .tags(["groundswell"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"))
    )
    if name == "worker":
        builder = builder.with_variable(
            dashboard.QueryVariable("instance")
            .label("Worker")
            .query(f"label_values(groundswell_ready{{{ALL}}}, instance)")
            .datasource(SOURCE)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
    for row, panels in rows:
        builder = builder.with_row(dashboard.Row(row))
        for made in panels:
            builder = builder.with_panel(panel(made))
    return builder.build()


def texts() -> dict[str, str]:
    """Return the content of each file."""
    return {f"{name}.json": JSONEncoder(sort_keys=True, indent=2).encode(board(name)) + "\n" for name in BOARDS}


def main(*, check: bool) -> int:
    """Write or compare the files; returns the exit code."""
    differ = 0
    for name, text in texts().items():
        path = FOLDER / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            differ += 1
            if not check:
                path.write_text(text, encoding="utf-8")
    return 1 if check and differ else 0


if __name__ == "__main__":
    raise SystemExit(main(check="--check" in sys.argv[1:]))
