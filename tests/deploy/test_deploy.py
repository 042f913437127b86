"""deploy/: what can be checked without Docker: it parses, and names only what exists."""

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
    """The names of all settings' variables."""
    return set(sources.known_names(Settings))


def compose() -> dict[str, Any]:
    """The services by name."""
    text = (DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["services"])


def unknown_variables(text: str) -> set[str]:
    """Variables with our prefix that are no setting."""
    return set(VARIABLE.findall(text)) - known_variables()


def test_names_only_settings_that_exist() -> None:
    """A variable in an image or a service that is no setting would stop the worker."""
    files = [path for path in DEPLOY.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert unknown_variables(path.read_text(encoding="utf-8")) == set(), path.name
    assert unknown_variables("GROUNDSWELL_BROKERS: x") == {"GROUNDSWELL_BROKERS"}


@pytest.mark.parametrize("name", ["topics", "worker"])
def test_services_start_with_their_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """The settings of each service are accepted, and its command is one of ours."""
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
    """Image, service and scrape configuration agree with the default of the setting."""
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


def test_prometheus_knows_the_token() -> None:
    """The worker's web port is open to other containers, so it asks for the token that Prometheus is given."""
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    name = scrape["scrape_configs"][0]["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    whole = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    assert whole["secrets"][name] == {"environment": f"{PREFIX}WEB_TOKEN"}
    assert name in whole["services"]["prometheus"]["secrets"]


def test_the_image_runs_as_nobody_and_from_the_lock() -> None:
    """It is built in stages from the hashed lock, does not run as root, and can be asked whether it is alive."""
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("FROM ") for line in lines) == 2
    assert any(line.startswith("USER ") and "root" not in line for line in lines)
    assert any("--require-hashes requirements.lock" in line for line in lines)
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    copied = [word for line in lines if line.startswith("COPY") and "--from" not in line for word in line.split()[1:-1]]
    assert {"streams", "graphstate", "model", "requirements.lock", "pyproject.toml"} <= set(copied)


def test_the_same_kafka_as_in_the_tests() -> None:
    """What is deployed is the release that is tested."""
    tested = jars.ROOTS[0].rpartition(":")[2]
    assert compose()["kafka"]["image"] == f"apache/kafka:{tested}"
