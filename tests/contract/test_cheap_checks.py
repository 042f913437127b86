"""What this machine can answer comes before Kafka: model, data folder, settings; and each names what is wrong."""

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
    """Kafka must not be asked."""

    def asked(*_: Any, **__: Any) -> None:
        pytest.fail("Kafka was asked before")

    monkeypatch.setattr(run, "_prepare", asked)
    monkeypatch.setattr(embedded, "EmbeddedKafka", asked)


def serve(settings: Settings) -> None:
    """Run a worker that is expected to refuse its surroundings."""
    asyncio.run(run.serve(settings, asyncio.Event()))


@pytest.mark.usefixtures("no_kafka")
def test_a_worker_looks_at_its_model_and_folder_before_it_asks_kafka(tmp_path: Path) -> None:
    """A missing model, a data folder that is a file, one that another worker has."""
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
def test_a_demo_looks_at_settings_and_model_before_it_starts_kafka(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong is said at once."""
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
def test_a_folder_that_takes_no_lock_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, message: str
) -> None:
    """A full disk shows when the lock's file is written; what is wrong and what to do is one line."""

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(StateError, match=message):
        data_dir.lock_data_dir(tmp_path)


def test_a_model_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of another user, and a file in place of a folder."""
    (tmp_path / "config.json").touch()
    with pytest.raises(ArtifactError, match=r"config\.json is no folder"):
        Artifact.load(tmp_path / "config.json")

    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ArtifactError, match=r"config\.json cannot be read \(Permission denied\): correct"):
        Artifact.load(tmp_path)


def test_a_folder_that_cannot_be_read_does_not_pass_for_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`state find` must not report that nothing is left of a person where it may not look."""

    def walk(path: Path, onerror: Any) -> list[Any]:
        onerror(PermissionError(errno.EACCES, "Permission denied", str(path / "shard-0")))
        return []

    data_dir.check_readable(tmp_path / "none")
    monkeypatch.setattr(os, "walk", walk)
    monkeypatch.setenv(PREFIX + "DATADIR", str(tmp_path))
    for command in (["state", "find", "alice"], ["state", "inspect"], ["state", "verify"]):
        assert cli.run(command) == 1
        assert "shard-0 cannot be read (Permission denied)" in capsys.readouterr().err
