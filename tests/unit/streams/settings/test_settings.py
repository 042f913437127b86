"""The settings: their sources, invalid values, and secrets that are never shown."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from streams.errors import SettingsError
from streams.settings.settings import PREFIX, Settings

SECRET = "hush-hush"


def test_defaults_suit_a_single_machine() -> None:
    """A process without any variable talks to a broker on its own machine."""
    settings = Settings.load()
    assert (settings.broker, settings.web_host, settings.web_port) == ("localhost:9092", "127.0.0.1", 6066)
    assert (settings.retention_s, settings.lateness_s) == (30 * 86_400, 7 * 86_400)
    assert (settings.publish_reach, settings.publish_percentile) == (0.02, 0.5)


def test_reads_the_environment_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables have the prefix; arguments take precedence; None and empty values count as not given."""
    monkeypatch.setenv("GROUNDSWELL_WEB_PORT", "7000")
    monkeypatch.setenv("GROUNDSWELL_BROKER", "")
    assert Settings.load().web_port == 7000
    assert Settings.load(web_port=7001).web_port == 7001
    assert Settings.load(web_port=None).web_port == 7000
    assert Settings.load().broker == "localhost:9092"


def test_is_frozen() -> None:
    """The settings of a running process cannot be changed."""
    with pytest.raises(ValidationError):
        Settings.load().broker = "elsewhere:1"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BROKER", "nohost"),
        ("BROKER", "host:notaport"),
        ("BROKER", "a:1,b"),
        ("BROKER", "a:70000"),
        ("WEB_PORT", "66000"),
        ("DEVICE", "tpu"),
        ("SHARDS", "0"),
        ("PUBLISH_REACH", "nan"),
        ("TOLERANCE", "nan"),
        ("TOLERANCE", "-0.1"),
        ("TOLERANCE", "1.1"),
        ("PREFIX", "a b"),
        ("LOG_FORMAT", "xml"),
        ("SECURITY_PROTOCOL", "TLS"),
        ("WEB_TOKEN", "fifteen-letters"),
        ("WEB_TOKEN", "sixteen letters!"),
        ("WEB_TOKEN", "x" * 257),
    ],
)
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """The error is one line that begins with the name of the variable."""
    monkeypatch.setenv(PREFIX + variable, value)
    with pytest.raises(SettingsError, match=f"^{PREFIX}{variable}: ") as caught:
        Settings.load()
    assert "\n" not in str(caught.value)


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable with the prefix that is no setting would have no effect."""
    monkeypatch.setenv("GROUNDSWELL_BROKERS", "a:1")
    with pytest.raises(SettingsError, match="GROUNDSWELL_BROKERS is no setting"):
        Settings.load()


def test_log_in_needs_a_user() -> None:
    """Fields that depend on each other are checked together."""
    with pytest.raises(SettingsError, match="GROUNDSWELL_SASL_USERNAME is needed"):
        Settings.load(security_protocol="SASL_PLAINTEXT")
    with pytest.raises(SettingsError, match="GROUNDSWELL_SSL_CERTFILE is needed"):
        Settings.load(ssl_keyfile="key.pem")


def test_no_audit_of_what_is_held_back() -> None:
    """The audit compares bits and would repair what a tolerance holds back; each alone is allowed."""
    assert Settings.load().tolerance == 0
    assert Settings.load(tolerance=0.01).tolerance == 0.01
    assert Settings.load(tolerance=0, audit_share=0.01).audit_share == 0.01
    with pytest.raises(
        SettingsError, match=r"GROUNDSWELL_TOLERANCE and GROUNDSWELL_AUDIT_SHARE .*: set one of them to 0"
    ):
        Settings.load(tolerance=0.01, audit_share=0.01)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_this_machine_needs_no_token(host: str) -> None:
    """On a loopback address no other machine can send requests."""
    assert Settings.load(web_host=host).web_headers() == {}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "fe80::1", "worker-1", "localhost.example"])
def test_any_other_address_needs_a_token(host: str) -> None:
    """Without a token any machine could send requests: the error names the setting and how to make a token."""
    with pytest.raises(SettingsError, match=r"GROUNDSWELL_WEB_TOKEN is needed.*openssl"):
        Settings.load(web_host=host)
    assert Settings.load(web_host=host, web_token="t" * 16).web_headers() == {"Authorization": "Bearer " + "t" * 16}


def test_a_refused_token_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error about an invalid secret does not contain it."""
    monkeypatch.setenv(PREFIX + "WEB_TOKEN", SECRET)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert SECRET not in str(caught.value)


def test_settings_are_handed_over_whole() -> None:
    """A child process gets the same settings, secrets included."""
    settings = Settings.load(sasl_password=SECRET, web_token="t" * 16, web_host="0.0.0.0")
    assert Settings.model_validate_json(settings.handed_over()) == settings


def test_the_prefix_is_part_of_the_group() -> None:
    """Several installations in one Kafka have different groups."""
    assert Settings.load(prefix="x.", group="g").consumer_group == "x.g"


def test_every_setting_has_a_description() -> None:
    """Each field has a description that ends with a full stop."""
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
