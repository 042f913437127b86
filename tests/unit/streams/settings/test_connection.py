"""Arguments of Kafka clients: addresses, login and TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import SettingsError
from streams.settings.connection import aiokafka_arguments, kafka_arguments
from streams.settings.settings import Settings

SECRET = "hush-hush"


def test_secrets_reach_clients_and_nothing_else() -> None:
    """The password is in the clients' arguments and in no printed form of the settings."""
    settings = Settings.load(security_protocol="SASL_PLAINTEXT", sasl_username="me", sasl_password=SECRET)
    for arguments in (kafka_arguments(settings), aiokafka_arguments(settings)):
        assert arguments["sasl_plain_password"] == SECRET
        assert arguments["sasl_plain_username"] == "me"
    for shown in (str(settings), repr(settings), str(settings.public()), settings.model_dump_json()):
        assert SECRET not in shown
    assert settings.public()["sasl_password"] == "***"
    assert settings.public()["ssl_password"] == ""


def test_tls_makes_a_context(tmp_path: Path) -> None:
    """With TLS the arguments hold a context, without it none; missing certificates are an error."""
    assert "ssl_context" not in kafka_arguments(Settings.load())
    settings = Settings.load(security_protocol="SSL", ssl_check_hostname=False)
    assert aiokafka_arguments(settings)["ssl_context"].check_hostname is False
    with pytest.raises(SettingsError, match="certificates cannot be read"):
        kafka_arguments(Settings.load(security_protocol="SSL", ssl_cafile=str(tmp_path / "none.pem")))


def test_addresses() -> None:
    """Several brokers are a list for kafka-python and a string for aiokafka."""
    settings = Settings.load(broker="a:1, b:2")
    assert kafka_arguments(settings)["bootstrap_servers"] == ["a:1", "b:2"]
    assert aiokafka_arguments(settings)["bootstrap_servers"] == "a:1,b:2"
