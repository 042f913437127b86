"""deploy/ without Docker: its files parse, and name only settings, commands and files that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams import cli
from streams.embedded import jars
from streams.settings import sources
from streams.settings.settings import PREFIX, Settings
from tests.support import tidy

DEPLOY = tidy.ROOT / "deploy"
DOCKERFILE = DEPLOY / "image" / "Dockerfile"
VARIABLE = re.compile(rf"\b{PREFIX}[A-Z_]+\b")


def known_variables() -> set[str]:
    """Return the names of the variables of all settings."""
    return set(sources.known_names(Settings))


def compose() -> dict[str, Any]:
    """Return the services by name."""
    text = (DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["services"])


def unknown_variables(text: str) -> set[str]:
    """Return the variables with the prefix of the settings that are none."""
    return set(VARIABLE.findall(text)) - known_variables()


def test_every_variable_is_a_setting() -> None:
    """A variable of an image or a service that is no setting would stop the worker."""
    files = [path for path in DEPLOY.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert unknown_variables(path.read_text(encoding="utf-8")) == set(), path.name
    assert unknown_variables("GROUNDSWELL_BROKERS: x") == {"GROUNDSWELL_BROKERS"}


@pytest.mark.parametrize("name", ["topics", "worker"])
def test_services_start_with_their_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """The settings of each service are valid, and its command exists."""
    service = compose()[name]
    for secret in service.get("secrets", ()):
        (tmp_path / secret).write_text("t" * 16, encoding="utf-8")
    image = dict(re.findall(rf"({PREFIX}\w+)=(\S+)", DOCKERFILE.read_text(encoding="utf-8")))
    for variable, value in {**image, **service["environment"]}.items():
        monkeypatch.setenv(variable, value.replace("/run/secrets", str(tmp_path)))
    host, port = Settings.load().servers[0].split(":")
    assert host in compose()
    assert f"://:{port}," in compose()["kafka"]["environment"]["KAFKA_LISTENERS"]
    assert service["command"][0] in cli.COMMANDS


def test_the_web_port_is_the_same_everywhere() -> None:
    """Image, service and scrape configuration use the default port of the setting."""
    port = Settings.model_fields["web_port"].default
    image = DOCKERFILE.read_text(encoding="utf-8")
    assert f"EXPOSE {port}" in image
    assert f"{PREFIX}WEB_PORT={port}" in image
    assert f":${{GROUNDSWELL_WEB_PORT:-{port}}}/livez" in image
    assert compose()["worker"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = scrape["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert job["static_configs"] == [{"targets": [f"worker:{port}"]}]


def test_prometheus_sends_the_token() -> None:
    """The web port of the worker is open to other containers and requires the token; Prometheus sends it."""
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    name = scrape["scrape_configs"][0]["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    compose_file = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    assert compose_file["secrets"][name] == {"environment": f"{PREFIX}WEB_TOKEN"}
    assert name in compose_file["services"]["prometheus"]["secrets"]


def test_the_image_runs_without_root_and_from_the_lock() -> None:
    """The image has two stages, installs the hashed lock, does not run as root, and has a liveness check."""
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("FROM ") for line in lines) == 2
    assert any(line.startswith("USER ") and "root" not in line for line in lines)
    assert any("--require-hashes requirements.lock" in line for line in lines)
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    copied = [word for line in lines if line.startswith("COPY") and "--from" not in line for word in line.split()[1:-1]]
    assert {"streams", "graphstate", "model", "requirements.lock", "pyproject.toml"} <= set(copied)


def test_the_same_kafka_as_in_the_tests() -> None:
    """The compose file deploys the release of Kafka that the tests run."""
    tested = jars.ROOTS[0].rpartition(":")[2]
    assert compose()["kafka"]["image"] == f"apache/kafka:{tested}"
