"""Check the Helm chart: `make chart`, or python -m tests.deploy.chart [--helm PROGRAM].

Lints and renders the chart with each file of values in ci/, validates the objects against Kubernetes' schemas of three
versions, and checks that values which contradict each other are refused. Helm is compiled once into build/tools (four
minutes; needs Go).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from streams.settings import sources
from streams.settings.settings import Settings
from tests.support import tidy

CHART = tidy.ROOT / "deploy" / "helm" / "groundswell"
TOOLS = tidy.ROOT / "build" / "tools"
HELM = "helm.sh/helm/v4/cmd/helm@v4.3.2"
VERSIONS = ("1.31", "1.34", "1.37")
REFUSED = {
    "more workers than shards and a standby": ["worker.replicas=3"],
    "more workers by autoscaling than shards": ["autoscaling.maxReplicas=2"],
    "a value that does not exist": ["worker.replica=1"],
    "a secret as a plain value": ["settings.SASL_PASSWORD=hunter2"],
    "a broker without a port": ["kafka.broker=kafka"],
}
"""Values that must be refused, with the default of one shard."""


def helm_program(given: str | None) -> str:
    """The path of helm; compiles it if there is none."""
    path = os.pathsep.join([str(TOOLS), os.environ["PATH"]])
    if found := given or shutil.which("helm", path=path):
        return found
    sys.stdout.write(f"compiling {HELM} into build/tools (once, four minutes)\n")
    subprocess.run(["go", "install", HELM], env={**os.environ, "GOBIN": str(TOOLS)}, check=True)
    return str(TOOLS / "helm")


def helm(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm."""
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def render(program: str, values: Path | None, *options: str) -> subprocess.CompletedProcess[str]:
    """Render the chart."""
    files = ["--values", str(values)] if values else []
    return helm(program, "template", "release", str(CHART), *files, *options)


def unknown_settings(objects: list[dict[str, Any]]) -> set[str]:
    """The variables of containers with the prefix of the settings that are none."""
    names = set(re.findall(r"GROUNDSWELL_[A-Z_]+", str([one for one in objects if one["kind"] != "ConfigMap"])))
    return names - set(sources.known_names(Settings))


def validate(objects: list[dict[str, Any]], version: str) -> Iterator[str]:
    """The errors of these objects under a version, and the kinds that have no schema here."""
    for one in objects:
        name = f"{one['kind']} {one['metadata']['name']}"
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            yield f"no schema: {one['apiVersion']} {one['kind']}"
        except kubernetes_validate.ValidationError as error:
            yield f"ERROR {name}: {error.message} at {list(error.path)}"


def main() -> int:
    """Run all checks; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--helm", help="the program; default: build/tools, then the path")
    program, failed = helm_program(parser.parse_args().helm), False
    for values in sorted((CHART / "ci").glob("*.yaml")):
        lint = helm(program, "lint", str(CHART), "--values", str(values), "--strict")
        done = render(program, values)
        if lint.returncode or done.returncode:
            sys.stdout.write(f"{values.name}: {lint.stdout}{done.stderr}\n")
            return 1
        objects = [one for one in yaml.safe_load_all(done.stdout) if one]
        problems = {version: set(validate(objects, version)) for version in VERSIONS}
        unknown, errors = (
            unknown_settings(objects),
            {one for all_ in problems.values() for one in all_ if one[:5] == "ERROR"},
        )
        without = sorted({one for all_ in problems.values() for one in all_} - errors)
        failed |= bool(unknown or errors)
        sys.stdout.write(
            f"{values.name}: {len(objects)} objects, versions {', '.join(VERSIONS)}: "
            f"{'; '.join(sorted(errors | unknown)) or 'valid'}{'; ' + '; '.join(without) if without else ''}\n"
        )
    # The validation itself must be able to fail.
    objects[0]["spec" if "spec" in objects[0] else "metadata"]["replica"] = 1
    found = any(one.startswith("ERROR") for one in validate(objects[:1], VERSIONS[-1]))
    failed |= not found
    sys.stdout.write(f"a misspelt field of an object: {'found' if found else 'NOT FOUND'}\n")
    for what, options in REFUSED.items():
        done = render(program, None, *(word for option in options for word in ("--set", option)))
        failed |= done.returncode == 0
        sys.stdout.write(f"{what}: {'ACCEPTED' if not done.returncode else 'refused: ' + _reason(done.stderr)}\n")
    return int(failed)


def _reason(text: str) -> str:
    """The line of helm's message that has the reason."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("level=", "Use --debug"))]
    return lines[-1].rpartition(": ")[2].strip()[:160]


if __name__ == "__main__":
    raise SystemExit(main())
