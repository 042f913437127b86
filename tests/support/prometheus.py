"""A real Prometheus for tests: scrapes given addresses, evaluates the rules of deploy/, and answers queries."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request

import yaml

from streams.settings.direct_http import urlopen
from tests.chaos.network import free_ports
from tests.support import needs, tidy
from tests.support.workers import wait_for

RULES = tidy.ROOT / "deploy" / "prometheus" / "rules.yml"
DURATION = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])")
UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
LEAST_S, LEAST_HOUR_S = 5, 15
"""Shortest duration of scaled rules, and of those of an hour and more: some scrapes must fit in, and an alert's `for`
into the hour that it looks back. A threshold is at least 1 s."""


def seconds(duration: str) -> int:
    """The seconds of a duration such as `5m`."""
    return int(duration[:-1]) * UNITS_S[duration[-1]]


def scaled(rules: dict[str, Any], factor: int) -> dict[str, Any]:
    """The rules with all durations divided by a factor, also thresholds in seconds of the clock."""

    def shorter(duration: str) -> str:
        whole = seconds(duration)
        return f"{max(LEAST_S if whole < UNITS_S['h'] else LEAST_HOUR_S, whole // factor)}s"

    def expression(text: str) -> str:
        text = DURATION.sub(lambda found: shorter(found.group()), text)
        # The lag of a watermark is event time, which runs as fast as before.
        if "watermark_lag" in text:
            return text
        text = re.sub(r"> (3 \* 3600|7200|300|60)$", lambda found: f"> {max(1, _product(found[1]) / factor):g}", text)
        return text.replace("> 3 * 86400", f"> {3 * 86_400 / factor:g}")

    groups = [
        {
            "name": group["name"],
            "interval": "1s",
            "rules": [
                rule | {"expr": expression(rule["expr"])} | ({"for": shorter(rule["for"])} if "for" in rule else {})
                for rule in group["rules"]
            ],
        }
        for group in rules["groups"]
    ]
    return {"groups": groups}


def _product(text: str) -> int:
    """The value of `3 * 3600`."""
    first, _, second = text.partition(" * ")
    return int(first) * int(second or 1)


class Prometheus:
    """A running server.

    Args:
        port: its port.
    """

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"

    def get(self, path: str, **query: Any) -> Any:
        """The data of an answer of the API."""
        with urlopen(Request(f"{self.address}{path}?{urlencode(query)}"), 10) as answer:
            return json.loads(answer.read())["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series that an expression returns now."""
        found: list[dict[str, Any]] = self.get("/api/v1/query", query=expr)["result"]
        return found

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        return {one["labels"]["alertname"] for one in self.get("/api/v1/alerts")["alerts"] if one["state"] == "firing"}

    def healthy(self) -> bool:
        """Whether it is ready and every target was scraped."""
        try:
            with urlopen(Request(f"{self.address}/-/ready"), 5) as answer:
                if answer.status != 200:
                    return False
            targets = self.get("/api/v1/targets")["activeTargets"]
        except OSError:
            return False
        return bool(targets) and all(target["health"] == "up" for target in targets)


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, list[int]], rules: dict[str, Any]) -> Iterator[Prometheus]:
    """Run a Prometheus until the end of the block.

    Args:
        folder: its files; must exist.
        targets: the local ports to scrape, by job.
        rules: the content of its rule file.
    """
    (port,) = free_ports(1)
    (folder / "rules.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
        for job, ports in targets.items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [str(needs.PROMETHEUS), "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    running = Prometheus(port)
    try:
        wait_for(lambda: process.poll() is not None or _answers(running), 60, "Prometheus")
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        yield running
    finally:
        process.terminate()
        process.wait(30)


def _answers(running: Prometheus) -> bool:
    """Whether it answers."""
    try:
        with urlopen(Request(f"{running.address}/-/ready"), 5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def as_boolean(expr: str) -> str:
    """The expression with every comparison as 0 or 1, so that it has a series whether its condition holds or not."""
    return re.sub(r"(?<!\w)(==|!=|<=|>=|<|>)(?= )", r"\1 bool", expr)


def until(condition: Any, timeout_s: float, period_s: float = 0.5) -> float | None:
    """Seconds until a condition holds; None after the timeout."""
    begin = time.monotonic()
    while time.monotonic() - begin < timeout_s:
        if condition():
            return time.monotonic() - begin
        time.sleep(period_s)
    return None
