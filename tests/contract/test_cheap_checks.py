"""Local checks run before the first request to Kafka: model, data folder, settings. Each error names the problem."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from model.artifact import Artifact
from model.errors import ArtifactError
from streams import cli, embedded
from streams.errors import StateError
from streams.settings.settings import PREFIX, Settings
from streams.worker import data_dir, run


@pytest.fixture
def no_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if a command contacts Kafka."""

    def asked(*_: Any, **__: Any) -> None:
        pytest.fail("Kafka was contacted before the local checks")

    monkeypatch.setattr(run, "_prepare", asked)
    monkeypatch.setattr(embedded, "EmbeddedKafka", asked)


def serve(settings: Settings) -> None:
    """Run a worker that is expected to exit with an error."""
    asyncio.run(run.serve(settings, asyncio.Event()))


@pytest.mark.usefixtures("no_kafka")
def test_a_worker_checks_model_and_folder_before_kafka(tmp_path: Path) -> None:
    """A missing model, a data folder that is a file, and a folder in use by another worker are errors."""
    with pytest.raises(ArtifactError, match="none does not exist: give a folder that `groundswell train` wrote"):
        serve(Settings(web_port=0, datadir=tmp_path / "a", model=str(tmp_path / "none")))
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="is no folder, or lies in something that is none: set GROUNDSWELL_DATADIR"):
        serve(Settings(web_port=0, datadir=tmp_path / "file"))
    with pytest.raises(StateError, match="is no folder, or lies in something"):
        serve(Settings(web_port=0, datadir=tmp_path / "file" / "below"))
    with (
        data_dir.lock_data_dir(tmp_path / "held"),
        pytest.raises(StateError, match=f"in use by another worker .process {os.getpid()}"),
    ):
        serve(Settings(web_port=0, datadir=tmp_path / "held"))


@pytest.mark.usefixtures("no_kafka")
def test_a_demo_checks_settings_and_model_before_kafka(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing model and an invalid setting are reported before Kafka is started."""
    monkeypatch.setenv(PREFIX + "MODEL", str(tmp_path / "none"))
    assert cli.run(["demo"]) == 1
    assert "none does not exist" in capsys.readouterr().err
    monkeypatch.setenv(PREFIX + "MODEL", "")
    monkeypatch.setenv(PREFIX + "SHARDS", "0")
    assert cli.run(["demo"]) == 1
    assert "GROUNDSWELL_SHARDS: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "has no room left .*: make room"), (errno.EROFS, "cannot be written")]
)
def test_a_folder_that_cannot_be_locked_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, message: str
) -> None:
    """A full or read-only disk shows when the lock file is written; one line names the folder and the remedy."""

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(StateError, match=message):
        data_dir.lock_data_dir(tmp_path)


def test_a_model_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file without read permission, and a file in place of a folder."""
    (tmp_path / "config.json").touch()
    with pytest.raises(ArtifactError, match=r"config\.json is no folder"):
        Artifact.load(tmp_path / "config.json")

    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ArtifactError, match=r"config\.json cannot be read \(Permission denied\): correct"):
        Artifact.load(tmp_path)


def test_an_unreadable_folder_is_not_treated_as_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`state find` must not report that no data of a person is left in a folder that it cannot read."""

    def walk(path: Path, onerror: Any) -> list[Any]:
        onerror(PermissionError(errno.EACCES, "Permission denied", str(path / "shard-0")))
        return []

    data_dir.check_readable(tmp_path / "none")
    monkeypatch.setattr(os, "walk", walk)
    monkeypatch.setenv(PREFIX + "DATADIR", str(tmp_path))
    for command in (["state", "find", "alice"], ["state", "inspect"], ["state", "verify"]):
        assert cli.run(command) == 1
        assert "shard-0 cannot be read (Permission denied)" in capsys.readouterr().err
