"""deploy/ without Docker and Kubernetes: files are valid, and name only settings, commands and files that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams import cli
from streams.embedded import jars
from streams.settings import sources
from streams.settings.settings import PREFIX, Settings
from tests.deploy import image_root
from tests.support import tidy

DEPLOY = tidy.ROOT / "deploy"
DOCKERFILE = DEPLOY / "image" / "Dockerfile"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
CHART = DEPLOY / "helm" / "groundswell"
UNIT = DEPLOY / "systemd" / "groundswell.service"
VARIABLE = re.compile(rf"\b{PREFIX}[A-Z_]+\b(?!_?\{{)")


def known_variables() -> set[str]:
    """Return the names of the variables of all settings, and that of the file with settings."""
    return set(sources.known_names(Settings))


def compose() -> dict[str, Any]:
    """Return the services by name."""
    return dict(yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"])


def program(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment."""
    command = [str(Path(sys.executable).parent / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def unknown_variables(text: str) -> set[str]:
    """Return the variables with the prefix of the settings that are none."""
    # A template completes the name of a variable.
    return {name for name in VARIABLE.findall(text) if not name.endswith("_")} - known_variables()


def test_every_variable_is_a_setting() -> None:
    """A variable of an image, a service or a chart that is no setting would stop the worker."""
    files = [path for path in DEPLOY.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert files
    for path in files:
        assert unknown_variables(path.read_text(encoding="utf-8")) == set(), path.name
    assert unknown_variables("GROUNDSWELL_BROKERS: x") == {"GROUNDSWELL_BROKERS"}


@pytest.mark.parametrize("name", ["worker", "analyst"])
def test_services_start_with_their_settings(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The settings of each service are valid without a token, and its command exists."""
    service = compose()[name]
    image = dict(re.findall(rf"({PREFIX}\w+)=(\S+)", DOCKERFILE.read_text(encoding="utf-8")))
    for variable, value in {**image, **service["environment"]}.items():
        monkeypatch.setenv(variable, value)
    settings = Settings.load()
    assert f"INSIDE://{settings.broker}," in compose()["kafka"]["environment"]["KAFKA_LISTENERS"]
    assert service["command"][0] in cli.COMMANDS
    assert (settings.web_host, service["network_mode"]) == ("127.0.0.1", "service:network")


def test_ports_are_reached_from_this_machine_only() -> None:
    """Published on the loopback address; the forwarder and Prometheus use the ports of worker and analyst."""
    services, environment = compose(), compose()["worker"]["environment"]
    default = Settings.model_fields["web_port"].default
    assert all(port.startswith("127.0.0.1:") for port in services["network"]["ports"])
    (forwarder,) = services["network"]["command"]
    forwarded = dict(re.findall(r"TCP-LISTEN:(\d+)\S* TCP:127.0.0.1:(\d+)", forwarder))
    assert forwarded[str(default)] == environment["GROUNDSWELL_WEB_PORT"]
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in scrape["scrape_configs"]}
    assert jobs == {
        "groundswell": [f"127.0.0.1:{environment['GROUNDSWELL_WEB_PORT']}"],
        "groundswell-analyst": [f"127.0.0.1:{environment['GROUNDSWELL_ANALYST_PORT']}"],
    }


def test_the_compose_file_is_valid() -> None:
    """It follows the compose specification, and every file that it mounts exists."""
    done = program("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)
    assert done.returncode == 0, done.stdout
    mounted = [volume.split(":")[0] for service in compose().values() for volume in service.get("volumes", ())]
    assert all((COMPOSE.parent / path).exists() for path in mounted if path.startswith("."))


def test_a_wrong_compose_file_is_refused(tmp_path: Path) -> None:
    """The check can fail."""
    wrong = tmp_path / "compose.yaml"
    wrong.write_text("services: { a: { imagee: x } }", encoding="utf-8")
    assert program("check-jsonschema", "--builtin-schema", "vendor.compose-spec", wrong).returncode != 0


def test_the_dockerfile_follows_the_rules(tmp_path: Path) -> None:
    """Hadolint has no remark; it has one on a file that ends as root with an untagged base."""
    done = program("hadolint", DOCKERFILE)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM python:latest\nRUN cd /tmp && apt-get install foo\nUSER root\n", encoding="utf-8")
    assert {"DL3007", "DL3002"} <= set(re.findall(r"DL\d+", program("hadolint", wrong).stdout))


def test_the_image_runs_as_a_number_with_health_and_labels() -> None:
    """The image has two stages, a user by number, labels, a liveness check, and the default port of the setting."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    lines, port = text.splitlines(), Settings.model_fields["web_port"].default
    assert sum(line.startswith("FROM ") for line in lines) == 2
    assert "USER 10001:10001" in lines
    assert {"title", "version", "revision", "licenses"} <= set(re.findall(r"org\.opencontainers\.image\.(\w+)=", text))
    assert "HEALTHCHECK" in text
    assert f"EXPOSE {port} {Settings.model_fields['analyst_port'].default}" in lines
    assert f"{PREFIX}WEB_PORT={port}" in text
    assert f"'{PREFIX}WEB_PORT', '{port}'" in text


def test_the_build_gets_what_it_copies_and_nothing_else() -> None:
    """Every file that the Dockerfile copies passes .dockerignore; tests, documents and local states do not."""
    passed = image_root.copied_files((tidy.ROOT / ".dockerignore").read_text(encoding="utf-8"))
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    names = {name.strip("/") for line in copied for name in line.split()}
    assert {name for name in names if not any(name == one or name.startswith(f"{one}/") for one in passed)} == set()
    assert all((tidy.ROOT / name).exists() for name in passed)
    assert not {"tests", "docs", "deploy", "build"} & set(passed)


def test_the_same_kafka_as_in_the_tests() -> None:
    """The compose file deploys the release of Kafka that the tests run."""
    tested = jars.ROOTS[0].rpartition(":")[2]
    assert compose()["kafka"]["image"] == f"apache/kafka:{tested}"


def test_values_of_the_chart_fit_their_schema(tmp_path: Path) -> None:
    """The defaults pass and a misspelt value does not; `make chart` renders and validates all of it."""
    schema = CHART / "values.schema.json"
    assert program("check-jsonschema", "--schemafile", schema, CHART / "values.yaml").returncode == 0
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    wrong = tmp_path / "values.json"
    wrong.write_text(json.dumps(values | {"shard": 2}), encoding="utf-8")
    assert program("check-jsonschema", "--schemafile", schema, wrong).returncode != 0


def test_the_chart_has_the_rules_and_dashboards() -> None:
    """They are the same files, not copies."""
    assert (CHART / "files" / "rules.yml").resolve() == DEPLOY / "prometheus" / "rules.yml"
    assert (CHART / "files" / "dashboards").resolve() == DEPLOY / "grafana" / "dashboards"


def test_the_chart_has_the_version_of_the_package() -> None:
    """Chart, image and package agree."""
    version = re.findall(r'^version = "(.+)"', (tidy.ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert [chart["version"], chart["appVersion"]] == version * 2
    assert f'ARG VERSION="{version[0]}"' in DOCKERFILE.read_text(encoding="utf-8")


def test_the_unit_is_hardened() -> None:
    """The unit writes to its state folder only, without privileges; its command and settings exist."""
    options = dict(
        line.split("=", 1) for line in UNIT.read_text(encoding="utf-8").splitlines() if re.match(r"\w+=", line)
    )
    expected = {"DynamicUser": "yes", "ProtectSystem": "strict", "NoNewPrivileges": "yes", "CapabilityBoundingSet": ""}
    assert {name: options.get(name) for name in expected} == expected
    assert options["ExecStart"].split()[1] in cli.COMMANDS
    assert f"{PREFIX}DATADIR=/var/lib/{options['StateDirectory']}" in options["Environment"]
