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
from tests.support.workers import set_environment


def trained(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Train and return the summary that `train` prints."""
    capsys.readouterr()
    assert cli.run(["train", *arguments, "--snapshots", "3", "--epochs", "1", "--json"]) == 0
    summary: dict[str, Any] = json.loads(capsys.readouterr().out)
    return summary


def test_topics_give_the_same_artifact_as_the_file(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Events and users are the same, and the output counts the invalid messages among them."""
    set_environment(monkeypatch, settings)
    file = tmp_path / "town.jsonl"
    assert cli.run(["simulate", "--out", str(file), "--users", "200", "--communities", "2", "--days", "14"]) == 0
    assert cli.run(["topics", "create"]) == 0
    assert cli.run(["produce", str(file)]) == 0
    producer = KafkaProducer(**kafka_arguments(settings))
    producer.send(topics.Topics(settings).share.name, b"junk").get(timeout=30)
    producer.close()
    from_file = trained(capsys, str(file), "--out", str(tmp_path / "one"))
    assert cli.run(["train", "--topics", "--out", str(tmp_path / "two"), "--snapshots", "3", "--epochs", "1"]) == 0
    assert "1 messages hold invalid events" in capsys.readouterr().err
    from_topics = trained(capsys, "--topics", "--out", str(tmp_path / "two"))
    # Rows are in the order of first appearance, which partitions change for events of equal time: weights may differ.
    assert (from_topics["events"], from_topics["held_out"]) == (from_file["events"], from_file["held_out"])
    assert from_topics["ladder"][:2] == from_file["ladder"][:2]
