"""The demo's settings: which settings of the environment it uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.commands import demo
from streams.demo.session import Plan
from streams.settings.settings import PREFIX, Settings

ADDRESS = "127.0.0.1:19092"
PRODUCTION = {
    "BROKER": "kafka-1:9092",
    "SECURITY_PROTOCOL": "SASL_SSL",
    "SASL_MECHANISM": "SCRAM-SHA-256",
    "SASL_USERNAME": "scorer",
    "SASL_PASSWORD": "hush-hush",
    "SSL_CAFILE": "ca.pem",
    "SSL_CERTFILE": "me.pem",
    "SSL_KEYFILE": "key.pem",
    "SSL_PASSWORD": "hush-hush",
    "SSL_CHECK_HOSTNAME": "false",
    "GROUP": "production",
    "INSTANCE": "worker-1",
    "PREFIX": "production.",
    "DATADIR": "production",
    "CHECKPOINTS": "file:///production",
}
KEPT = {"SHARDS": "2", "MODEL": "mine", "DEVICE": "cpu", "WEB_HOST": "localhost", "WEB_TOKEN": "t" * 16}


def test_a_demo_keeps_away_from_production(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It uses only its own Kafka, state and checkpoints, and no login of the environment."""
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(PREFIX + name, value)
    settings = demo._settings(Plan(), ADDRESS, tmp_path, 0)
    assert (settings.broker, settings.datadir) == (ADDRESS, tmp_path / "state")
    for name in PRODUCTION.keys() - {"BROKER", "DATADIR"}:
        assert getattr(settings, name.lower()) == Settings.model_fields[name.lower()].default, name


def test_a_demo_scores_and_shows_as_it_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Model, device, shards and web access are those of the environment; all shares of a file count."""
    for name, value in KEPT.items():
        monkeypatch.setenv(PREFIX + name, value)
    monkeypatch.setenv(PREFIX + "RETENTION_S", "60")
    settings = demo._settings(Plan(), ADDRESS, tmp_path, 0)
    assert (settings.shards, settings.model, settings.device, settings.web_host) == (2, "mine", "cpu", "localhost")
    assert settings.web_token.get_secret_value() == KEPT["WEB_TOKEN"]
    assert settings.retention_s == 60
    assert demo._settings(Plan(replay=tmp_path / "events.jsonl"), ADDRESS, tmp_path, 0).retention_s == 0
