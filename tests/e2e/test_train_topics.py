"""`groundswell train --topics` on the real broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from streams import cli
from streams.kafka import topics
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings


def trained(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What `train` says of its artifact."""
    capsys.readouterr()
    assert cli.run(["train", *arguments, "--snapshots", "3", "--epochs", "1", "--json"]) == 0
    summary: dict[str, Any] = json.loads(capsys.readouterr().out)
    return summary


def test_topics_give_what_the_file_gives(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The same events and people, whatever is junk beside them, and it says so."""
    for name in ("broker", "prefix", "datadir", "web_port"):
        monkeypatch.setenv(f"GROUNDSWELL_{name.upper()}", str(getattr(settings, name)))
    file = tmp_path / "town.jsonl"
    assert cli.run(["simulate", "--out", str(file), "--users", "200", "--communities", "2", "--days", "14"]) == 0
    assert cli.run(["topics", "create"]) == 0
    assert cli.run(["produce", str(file)]) == 0
    producer = KafkaProducer(**kafka_arguments(settings))
    producer.send(topics.Topics(settings).share.name, b"junk").get(timeout=30)
    producer.close()
    whole = trained(capsys, str(file), "--out", str(tmp_path / "one"))
    assert cli.run(["train", "--topics", "--out", str(tmp_path / "two"), "--snapshots", "3", "--epochs", "1"]) == 0
    assert "1 messages hold invalid events" in capsys.readouterr().err
    again = trained(capsys, "--topics", "--out", str(tmp_path / "two"))
    # Rows are in the order of first appearance, which equal times leave to the partitions: weights may differ by that.
    assert (again["events"], again["held_out"]) == (whole["events"], whole["held_out"])
    assert again["ladder"][:2] == whole["ladder"][:2]
