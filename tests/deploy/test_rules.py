"""Prometheus rules: they name only metrics of a worker, and fire on their conditions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from streams import cli
from streams.settings import sources
from streams.settings.settings import Settings
from streams.telemetry.analyst_metrics import AnalystMetrics
from streams.telemetry.metrics import Metrics
from tests.deploy.faults import NOT_FIRED, ONE_SHARD, TWO_SHARDS
from tests.support import needs, tidy

FOLDER = tidy.ROOT / "deploy" / "prometheus"
NAME = re.compile(r"\bgroundswell_[a-z_]+")
SUFFIX = re.compile(r"_(?:bucket|sum|count|total)$")


def rules() -> list[dict[str, Any]]:
    """Return every rule."""
    text = (FOLDER / "rules.yml").read_text(encoding="utf-8")
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def unknown(expr: str) -> set[str]:
    """Return the names in an expression that are no metrics of a worker."""
    expr = re.sub(r"groundswell\w*:\w+:\w+", "", expr)  # recorded
    registries = (Metrics().registry, AnalystMetrics().registry)
    measured = {family.name for registry in registries for family in registry.collect()}
    return {name for name in NAME.findall(expr) if SUFFIX.sub("", name) not in measured}


def test_rules_name_only_metrics_that_exist() -> None:
    """A misspelt metric would never fire."""
    for rule in rules():
        assert unknown(rule["expr"]) == set(), rule
    assert unknown("groundswell_lags_records > 1") == {"groundswell_lags_records"}


def test_alerts_have_an_action() -> None:
    """Each has a severity, a summary, an action and the runbook of its name; among them those of the objective."""
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    for rule in alerts.values():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "action", "runbook_url"}
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks.md#{rule['alert'].lower()}")
    assert {"GroundswellBudgetBurnsFast", "GroundswellLagGrows", "GroundswellNotReady"} <= set(alerts)


def test_every_alert_has_a_runbook() -> None:
    """The page has a section for each alert and no other, with four parts; commands and settings in it exist."""
    text = (tidy.ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == [rule["alert"] for rule in rules() if "alert" in rule]
    for name, section in sections.items():
        parts = re.findall(r"^\*\*(\w+)\.\*\* \S", section, re.MULTILINE)
        assert parts == ["Meaning", "Impact", "Diagnosis", "Mitigation"], name
    assert unknown(text) == set()
    assert set(re.findall(r"GROUNDSWELL_[A-Z_]+", text)) <= set(sources.known_names(Settings))
    assert set(re.findall(r"`groundswell (\w+)", text)) <= set(cli.COMMANDS)


def test_every_alert_has_a_fault() -> None:
    """`make alerts` fires each alert by one fault, or gives the reason why it cannot."""
    fired = [name for _, names in (*ONE_SHARD, *TWO_SHARDS) for name in names] + list(NOT_FIRED)
    assert sorted(fired) == sorted(rule["alert"] for rule in rules() if "alert" in rule)


def test_the_objective_is_a_bucket() -> None:
    """The bound of one second is a bucket of the histogram, in the text formats of Prometheus 2 and 3."""
    (freshness,) = [family for family in Metrics().registry.collect() if family.name == "groundswell_freshness_seconds"]
    bounds = {sample.labels.get("le") for sample in freshness.samples}
    assert "1" in bounds
    matched = {match for rule in rules() for match in re.findall(r'le=~"([^"]+)"', rule["expr"])}
    assert matched == {"1|1[.]0"}


def test_counters_that_alerts_watch_begin_at_zero() -> None:
    """`increase` ignores a series that first appears at 1, so all watched counters must exist from the start."""
    watched = {name for rule in rules() for name in re.findall(r"increase\((\w+)", rule["expr"])}
    values = {sample.name: sample.value for family in Metrics(["t"]).registry.collect() for sample in family.samples}
    assert len(watched) > 4
    assert {name: values.get(name) for name in watched} == dict.fromkeys(watched, 0.0)


def test_bounds_follow_the_defaults() -> None:
    """The bounds are twice the default time limit of a forget, and far above the interval of checkpoints."""
    within_s, every_s = (Settings.model_fields[name].default for name in ("erase_within_s", "checkpoint_every_s"))
    expr = {rule.get("alert"): rule["expr"] for rule in rules()}
    assert expr["GroundswellForget"].endswith(f"groundswell_forget_waiting_seconds > {2 * within_s:.0f}")
    assert expr["GroundswellCheckpointAge"] == "groundswell_checkpoint_age_seconds > 3 * 3600"
    assert 3 * every_s < 3 * 3600


def test_prometheus_loads_the_rules() -> None:
    """The configuration names the file, and the compose file mounts it."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    assert config["rule_files"] == ["rules.yml"]
    compose = yaml.safe_load((tidy.ROOT / "deploy" / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    mounted = compose["services"]["prometheus"]["volumes"]
    assert "../prometheus/rules.yml:/etc/prometheus/rules.yml:ro" in mounted


@needs.promtool
def test_promtool_agrees(tmp_path: Path) -> None:
    """The rules and their tests pass in promtool; a broken rule fails."""

    def run(*arguments: str) -> int:
        return subprocess.run(
            [str(needs.PROMTOOL), *arguments], cwd=tmp_path, capture_output=True, check=False
        ).returncode

    for path in FOLDER.glob("rules*.yml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert run("check", "rules", "rules.yml") == 0
    assert run("test", "rules", "rules.test.yml", "rules.days.test.yml") == 0
    text = (tmp_path / "rules.yml").read_text(encoding="utf-8")
    (tmp_path / "rules.yml").write_text(text.replace("groundswell_ready == 0", "groundswell_ready == 2"))
    assert run("test", "rules", "rules.test.yml") != 0
