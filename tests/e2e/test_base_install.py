"""The wheel with the base dependencies only, in an environment of its own: a worker runs, and commands name extras."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from streams.errors import EXTRAS
from streams.kafka.topics import Topics, admin, create
from streams.settings.settings import Settings
from tests.support import tidy
from tests.support.workers import WorkerProcess, producer, read_all, wait_for

UV = shutil.which("uv") or str(tidy.ROOT / "build" / "uv" / "bin" / "uv")
LARGEST_MB = 450
"""The environment has 357 MB."""


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder outside of the checkout."""
    words = [str(part) for part in command]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and its base dependencies, in the versions of the lock."""
    folder = tmp_path_factory.mktemp("base")
    build = [sys.executable, "-c", "from setuptools import build_meta as b; b.build_wheel('wheel')"]
    shutil.copytree(
        tidy.ROOT, folder / "source", ignore=shutil.ignore_patterns(".*", "build", "tests", "docs", "__pycache__")
    )
    assert run(*build, cwd=folder / "source").returncode == 0
    wheel = next((folder / "source" / "wheel").glob("*.whl"))
    versions = folder / "versions.txt"
    locked = (tidy.ROOT / "requirements.lock").read_text().splitlines()
    versions.write_text("\n".join(line.rstrip(" \\") for line in locked if line and line[0] not in " #"))
    for command in (
        (UV, "venv", "--quiet", "--python", sys.executable, folder / "env"),
        (UV, "pip", "install", "--quiet", "--python", folder / "env", "--constraint", versions, wheel),
    ):
        done = run(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} >= {"streams", "graphstate", "model"}
    assert not [name for name in names if name.startswith(("tests", "docs", "deploy"))]
    return folder / "env"


def test_the_base_has_no_library_of_an_extra(base: Path) -> None:
    """None of the large libraries is installed, and the environment stays small."""
    installed = {path.name for path in base.glob("lib/python*/site-packages/*")}
    assert not installed & EXTRAS.keys()
    size = sum(path.stat().st_size for path in base.rglob("*") if path.is_file() and not path.is_symlink())
    assert size < LARGEST_MB * 1e6


def test_commands_name_the_extra(base: Path, tmp_path: Path) -> None:
    """A command that needs an extra ends with one line that names it; text files need none."""
    groundswell = base / "bin" / "groundswell"
    assert (
        run(
            groundswell,
            "simulate",
            "--users",
            "50",
            "--communities",
            "2",
            "--days",
            "3",
            "--out",
            "s.jsonl",
            cwd=tmp_path,
        ).returncode
        == 0
    )
    assert run(groundswell, "produce", "s.jsonl", "--check", cwd=tmp_path).returncode == 0
    for command, extra in (
        (("simulate", "--users", "50", "--communities", "2", "--out", "s.parquet"), "files"),
        (("replay", "s.jsonl", "--out", "out"), "files"),
        (("train", "s.jsonl", "--out", "model"), "train"),
        (("demo",), "demo"),
    ):
        done = run(groundswell, *command, cwd=tmp_path)
        assert done.returncode == 1, command
        (line,) = done.stderr.splitlines()
        assert f"pip install 'groundswell[{extra}]'" in line
    assert [path.name for path in tmp_path.iterdir()] == ["s.jsonl"]


def test_a_worker_runs_on_the_base(
    base: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker on the base scores events, audits them with NumPy, and stops cleanly.

    Its code is the checkout's, because the kernels of that are compiled already.
    """
    monkeypatch.setenv("PYTHONPATH", str(tidy.ROOT))
    with admin(settings) as client:
        create(client, Topics(settings).all())
    process = WorkerProcess(settings.model_copy(update={"audit_share": 0.5}))
    process.python, process.folder = base / "bin" / "python", tmp_path
    process.start()
    try:
        process.wait_ready()
        topics = Topics(settings)
        with producer(settings) as kafka:
            for user in ("ana", "ben"):
                event = {"type": "create", "time": 1_700_000_000, "user": user, "content": f"post-{user}"}
                kafka.send(topics.create.name, json.dumps(event).encode())
        wait_for(
            lambda: {record.key for record in read_all(settings, [topics.score.name])} == {b"ana", b"ben"}, 60, "scores"
        )
        wait_for(lambda: audited(process) > 0, 60, "an audit")
        assert process.stop() == 0
    finally:
        process.kill()


def audited(process: WorkerProcess) -> float:
    """The number of audited users, from the worker's metrics."""
    fine = 'groundswell_audit_nodes_total{outcome="fine"}'
    lines = process.get("/metrics")[1].decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(fine))
