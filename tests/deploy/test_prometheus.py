"""A real Prometheus scrapes a real worker and analyst: every rule and every query of a dashboard returns a series."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics, admin, create
from streams.settings.settings import Settings
from tests.chaos.network import free_ports
from tests.support import needs, tidy
from tests.support.analysts import AnalystProcess
from tests.support.prometheus import RULES, Prometheus, as_boolean, prometheus, scaled
from tests.support.simulated import send, simulated, trickle
from tests.support.workers import WorkerProcess, wait_for

DASHBOARDS = tidy.ROOT / "deploy" / "grafana" / "dashboards"
RULE_FILE = yaml.safe_load(RULES.read_text(encoding="utf-8"))
EXPRESSIONS = {
    rule.get("alert") or rule["record"]: rule["expr"] for group in RULE_FILE["groups"] for rule in group["rules"]
}


def queries(instance: str = "127.0.0.1:6066") -> list[str]:
    """Every query of every dashboard, with a value for each variable."""
    found = []
    for path in DASHBOARDS.glob("*.json"):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                query = target["expr"].replace("$__rate_interval", "30s").replace("$instance", instance)
                found.append(query)
    return found


def alternatives(expr: str) -> list[str]:
    """The parts of an expression that are joined by `or` outside of brackets."""
    parts = [""]
    for word in expr.split(" or "):
        parts[-1] += word
        if parts[-1].count("(") == parts[-1].count(")"):
            parts.append("")
        else:
            parts[-1] += " or "
    return parts[:-1]


def test_every_expression_parses() -> None:
    """Rules and queries are PromQL; a broken one is refused."""
    found = queries()
    assert len(found) > 40
    for expr in [*found, *EXPRESSIONS.values()]:
        promql_parser.parse(expr)
    with pytest.raises(ValueError, match="invalid promql"):
        promql_parser.parse("sum by (job) rate(a[5m])")


def test_alternatives_are_split_outside_of_brackets() -> None:
    """Only the outer `or` separates."""
    assert alternatives("a > 1 or (b or c) > 2 or d") == ["a > 1", "(b or c) > 2", "d"]


def test_scaled_rules_keep_their_meaning() -> None:
    """Durations and thresholds in seconds are divided; nothing else changes."""
    rules = {
        "groups": [{"name": "a", "rules": [{"alert": "A", "expr": "rate(x[1h]) > 0.5 or y > 7200", "for": "10m"}]}]
    }
    (rule,) = scaled(rules, 60)["groups"][0]["rules"]
    assert (rule["expr"], rule["for"]) == ("rate(x[60s]) > 0.5 or y > 120", "10s")


@pytest.fixture(scope="module")
def running(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, str]]:
    """A Prometheus, and the address of the worker; everything is scraped."""
    folder = tmp_path_factory.mktemp("prometheus")
    ports = free_ports(2)
    settings = Settings.load(
        broker=kafka.address, prefix=f"p{ports[0]}.", datadir=folder / "state", web_port=ports[0], partitions=1,
        retention_s=0, checkpoints=f"file://{folder}/checkpoints", analyst_port=ports[1],
    )  # fmt: skip
    with admin(settings) as client:
        create(client, Topics(settings).all())
    events = simulated(folder, "--users", "300", "--communities", "10", "--days", "30")
    worker, analyst = WorkerProcess(settings), AnalystProcess(settings)
    analyst.log = folder / "analyst.log"
    targets = {"groundswell": [ports[0]], "groundswell-analyst": [ports[1]]}
    try:
        for process in (worker, analyst):
            process.start()
        with prometheus(folder, targets, scaled(RULE_FILE, 60)) as server:
            worker.wait_ready()
            send(settings, events)
            now_s = float(events[-1]["time"])
            wait_for(server.healthy, 60, "the targets")
            # The slowest: outcomes of alerts, closed posts, the first pass of the analyst.
            with trickle(settings, now_s):
                for metric in (
                    "groundswell_alert_precision",
                    "groundswell_live_spearman",
                    "groundswell_analyst_users > 0",
                ):
                    wait_for(lambda metric=metric: bool(server.query(metric)), 90, metric)  # type: ignore[misc]
                yield server, f"127.0.0.1:{ports[0]}"
    finally:
        for process in (worker, analyst):
            if process.process is not None:
                process.kill()


@needs.prometheus
def test_every_rule_returns_a_series(running: tuple[Prometheus, str]) -> None:
    """Each alternative of each rule names series that a worker or an analyst has."""
    server, _ = running
    rules = {rule["name"]: rule for group in server.get("/api/v1/rules")["groups"] for rule in group["rules"]}
    assert set(rules) == set(EXPRESSIONS)

    def without_series() -> dict[str, Any]:
        return {
            name: part
            for name, rule in rules.items()
            for part in alternatives(rule["query"])
            if not server.query(as_boolean(part.partition(" unless ")[0]))
        }

    wait_for(lambda: not without_series(), 60, f"series of {without_series()}")


@needs.prometheus
def test_every_query_of_the_dashboards_returns_data(running: tuple[Prometheus, str]) -> None:
    """No panel is empty, with a worker that has checkpoints and an analyst."""
    server, instance = running

    def empty() -> list[str]:
        return [query for query in queries(instance) if not server.query(query)]

    wait_for(lambda: not empty(), 60, f"data of {empty()}")


def test_the_dashboards_are_generated() -> None:
    """The files are what the generator writes."""
    import runpy

    generator = runpy.run_path(str(DASHBOARDS.parent / "generate.py"))
    assert {path.name: path.read_text(encoding="utf-8") for path in DASHBOARDS.glob("*.json")} == generator["texts"]()
