"""Sources of settings: files of secrets, a TOML file, variables of Kubernetes, and misspelt names."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from pydantic import SecretStr

from streams import cli
from streams.errors import SettingsError
from streams.operations import doctor
from streams.settings import sources
from streams.settings.settings import PREFIX, Settings

SECRET = "hush-hush-hush-hush"
SECRETS = sources.secret_fields(Settings)
LINKS = {
    "GROUNDSWELL_PORT": "tcp://10.0.0.1:6066",
    "GROUNDSWELL_SERVICE_HOST": "10.0.0.1",
    "GROUNDSWELL_SERVICE_PORT": "6066",
    "GROUNDSWELL_SERVICE_PORT_WEB": "6066",
    "GROUNDSWELL_PORT_6066_TCP": "tcp://10.0.0.1:6066",
    "GROUNDSWELL_PORT_6066_TCP_ADDR": "10.0.0.1",
    "GROUNDSWELL_PORT_6066_TCP_PORT": "6066",
    "GROUNDSWELL_PORT_6066_TCP_PROTO": "tcp",
    "GROUNDSWELL_WEB_PORT": "tcp://10.0.0.1:6066",
    "GROUNDSWELL_WEB_SERVICE_HOST": "10.0.0.1",
    "GROUNDSWELL_WEB_SERVICE_PORT": "6066",
    "GROUNDSWELL_WEB_PORT_6066_TCP_ADDR": "10.0.0.1",
    "GROUNDSWELL_METRICS_V2_SERVICE_PORT_HTTP_METRICS": "9090",
    "GROUNDSWELL_DNS_PORT_53_UDP": "udp://10.0.0.1:53",
}


def config(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a TOML file and name it in the environment."""
    path = folder / "groundswell.toml"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setenv(PREFIX + "CONFIG", str(path))
    return path


def secret(name: str, content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a file of a secret and name it in the environment."""
    path = folder / name
    path.write_bytes(content)
    monkeypatch.setenv(f"{PREFIX}{name.upper()}_FILE", str(path))
    return path


def refused() -> str:
    """Return the message of the error, which is one line."""
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_links_of_services_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes' variables of Services named groundswell, groundswell-web and so on are ignored."""
    for name, value in LINKS.items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == Settings()
    monkeypatch.setenv("GROUNDSWELL_WEB_PORT", "7000")
    assert Settings.load().web_port == 7000


def test_an_ignored_link_that_is_a_setting_by_name_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Only a variable with the name of a setting is reported; the TOML file's value is used."""
    for name, value in LINKS.items():
        monkeypatch.setenv(name, value)
    config("web_port = 7001", tmp_path, monkeypatch)
    assert Settings.load().web_port == 7001
    with caplog.at_level(logging.WARNING):
        sources.warn(Settings)
    (record,) = caplog.records
    assert "GROUNDSWELL_WEB_PORT=tcp://10.0.0.1:6066 is ignored" in record.getMessage()
    assert [finding.ok for finding in doctor.settings(Settings.examine())] == [True, True]


@pytest.mark.parametrize("name", ["GROUNDSWELL_PORT", "GROUNDSWELL_WEB_PROT", "GROUNDSWELL_WEBPORT"])
def test_a_number_for_no_setting_is_a_mistake(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A port that is no address was not set by Kubernetes."""
    monkeypatch.setenv(name, "7000")
    assert refused().startswith(f"{name} is no setting: did you mean GROUNDSWELL_WEB_PORT?")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("GROUNDSWELL_BROKRE", "GROUNDSWELL_BROKER"),
        ("groundswell_brokers", "GROUNDSWELL_BROKER"),
        ("GROUNDSWELL_SASL_PASWORD", "GROUNDSWELL_SASL_PASSWORD"),
        ("GROUNDSWELL_SASL_PASSWORD_FIEL", "GROUNDSWELL_SASL_PASSWORD_FILE"),
        ("GROUNDSWELL_CONFG", "GROUNDSWELL_CONFIG"),
        ("GROUNDSWELL__BROKER", "GROUNDSWELL_BROKER"),
        ("GROUNDWELL_BROKER", "GROUNDSWELL_BROKER"),
        ("GROUNDSWEL_WEB_TOKEN_FILE", "GROUNDSWELL_WEB_TOKEN_FILE"),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(monkeypatch: pytest.MonkeyPatch, given: str, meant: str) -> None:
    """Also with a misspelt prefix; the value is not repeated, because it may be a secret."""
    monkeypatch.setenv(given, SECRET)
    assert refused().startswith(f"{given} is no setting: did you mean {meant}?")
    assert SECRET not in refused()


@pytest.mark.parametrize("name", ["GROUNDS_BROKER", "GROUND_WEB_PORT", "SWELL_BROKER", "GROUNDSWEL_UNKNOWN"])
def test_variables_of_other_programs_are_not_ours(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Only a variable with almost the prefix and the name of a setting is refused."""
    monkeypatch.setenv(name, "x")
    assert Settings.load() == Settings()


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_every_secret_may_come_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, end: str
) -> None:
    """The newline at the end of a file is no part of a secret."""
    value = "https://hooks.example/x" if name == "alert_webhook" else SECRET
    path = secret(name, f"{value}{end}".encode(), tmp_path, monkeypatch)
    examined = Settings.examine()
    assert getattr(examined.settings, name).get_secret_value() == value
    assert examined.origins[name] == f"file {path}"
    assert getattr(Settings.load(), name) == SecretStr(value)


def test_every_kind_of_secret_is_covered() -> None:
    """The fields whose values are secrets are found by their type."""
    assert {"sasl_password", "ssl_password", "web_token"} <= set(SECRETS)


def test_a_secret_and_its_file_exclude_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two values for one secret are an error, unless an argument has precedence."""
    secret("sasl_password", b"other", tmp_path, monkeypatch)
    monkeypatch.setenv(PREFIX + "SASL_PASSWORD", SECRET)
    assert refused() == "GROUNDSWELL_SASL_PASSWORD and GROUNDSWELL_SASL_PASSWORD_FILE are both set: unset one of them"
    assert Settings.load(sasl_password="third").sasl_password.get_secret_value() == "third"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff", "not UTF-8"),
        (b"x" * 70_000, "large"),
    ],
)
def test_a_file_that_holds_no_secret_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, why: str
) -> None:
    """One line with the variable and the file; also for a folder in place of a file."""
    path = secret("web_token", content or b"", tmp_path, monkeypatch)
    if content is None:
        path.unlink()
        path.mkdir()
    assert refused().startswith(f"GROUNDSWELL_WEB_TOKEN_FILE: {path} ")
    assert why in refused()


def test_an_invalid_secret_in_a_file_names_the_file_s_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A value from a file is validated like any other, and the error does not contain it."""
    secret("web_token", b"sixteen letters!", tmp_path, monkeypatch)
    assert refused().startswith("GROUNDSWELL_WEB_TOKEN_FILE: must be 16 to 256")
    assert "sixteen letters!" not in refused()


def test_settings_of_a_toml_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Types are TOML's; the environment and files of secrets have precedence, arguments above all."""
    (tmp_path / "password").write_text("from-file\n", encoding="utf-8")
    path = config(
        f'broker = "a:1,b:2"\nweb_port = 7000\nretention_s = 0\nssl_check_hostname = false\ndatadir = "x/y"\n'
        f'sasl_password_file = "{tmp_path / "password"}"\nweb_token = "{SECRET}"\nshards = 3\nmemory_mb = 99\n',
        tmp_path,
        monkeypatch,
    )
    secret("web_token", b"y" * 16, tmp_path, monkeypatch)
    monkeypatch.setenv(PREFIX + "SHARDS", "4")
    examined = Settings.examine(memory_mb=64)
    settings = examined.settings
    assert examined.problems == []
    assert (settings.broker, settings.web_port, settings.retention_s) == ("a:1,b:2", 7000, 0)
    assert (settings.ssl_check_hostname, settings.datadir) == (False, Path("x/y"))
    assert (settings.shards, settings.memory_mb) == (4, 64)
    assert settings.sasl_password.get_secret_value() == "from-file"
    assert settings.web_token.get_secret_value() == "y" * 16
    assert {name: examined.origins[name] for name in ("broker", "shards", "memory_mb", "group")} == {
        "broker": str(path),
        "shards": "environment",
        "memory_mb": "command line",
        "group": "default",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("broker = \n", "GROUNDSWELL_CONFIG: {path} is not valid TOML: Invalid value (at line 1, column 10)"),
        ('broker = "a:1"\nbrokre = 1\n', "{path}, line 2: brokre is no setting: did you mean broker?"),
        ('GROUNDSWELL_BROKER = "a:1"\n', "{path}, line 1: GROUNDSWELL_BROKER is no setting: did you mean broker?"),
        ("[kafka]\nx = 1\n", "{path}, line 1: kafka is no setting"),
        ("\nweb_port = 70000\n", "{path}, line 2: web_port: Input should be less than or equal to 65535"),
        ("broker = ['a:1']\n", "{path}, line 1: broker: Input should be a valid string"),
        ("sasl_password_file = 3\n", "{path}: sasl_password_file: must be the path of a file"),
        ("sasl_password_file = 'x'\nsasl_password = 'y'\n", "{path}: sasl_password and sasl_password_file are both"),
    ],
)
def test_a_wrong_toml_file_is_named_with_the_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, message: str
) -> None:
    """The problem has the file, the line and the mistake."""
    path = config(text, tmp_path, monkeypatch)
    assert refused().startswith(message.format(path=path))


def test_a_toml_file_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing file, a folder and a file without text are one line each."""
    monkeypatch.setenv(PREFIX + "CONFIG", str(tmp_path / "none.toml"))
    assert "none.toml cannot be read (No such file or directory)" in refused()
    monkeypatch.setenv(PREFIX + "CONFIG", str(tmp_path))
    assert "cannot be read (Is a directory)" in refused()
    config("", tmp_path, monkeypatch).write_bytes(b"broker = '\xff'")
    assert "is not UTF-8" in refused()


def test_config_and_doctor_show_every_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both use defaults for invalid values, list every problem and exit with 1."""
    monkeypatch.setenv(PREFIX + "BROKRE", "a:1")
    monkeypatch.setenv(PREFIX + "SHARDS", "none")
    monkeypatch.setenv(PREFIX + "SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv(PREFIX + "BROKER", "127.0.0.1:1")
    monkeypatch.setenv(PREFIX + "DATADIR", str(tmp_path))
    wrong = ("GROUNDSWELL_BROKRE", "GROUNDSWELL_SHARDS", "GROUNDSWELL_SASL_USERNAME")
    assert "and 2 more" in refused()
    assert cli.run(["config", "--json"]) == 1
    shown = capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(shown.out)}
    assert rows["GROUNDSWELL_BROKER"]["from"] == "environment"
    assert rows["GROUNDSWELL_SHARDS"]["value"] == 1
    assert all(name in shown.err for name in wrong)
    monkeypatch.setattr(doctor, "CHECKS", [check for check in doctor.CHECKS if check.name in {"disk", "model"}])
    assert cli.run(["doctor", "--json"]) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    problems = [check["detail"] for check in checks if check["name"] == "settings" and not check["ok"]]
    assert all(any(name in problem for problem in problems) for name in wrong)
    assert [check["ok"] for check in checks if check["name"] != "settings"] == [True, True]


def test_config_shows_no_secret_of_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It shows the source of the secret."""
    path = secret("sasl_password", SECRET.encode(), tmp_path, monkeypatch)
    assert cli.run(["config"]) == 0
    shown = capsys.readouterr().out
    assert f"file {path}" in shown
    assert SECRET not in shown


def test_settings_that_are_handed_over_read_no_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that gets its settings through a pipe reads neither environment nor files."""
    secret("web_token", b"z" * 16, tmp_path, monkeypatch)
    config("shards = 3", tmp_path, monkeypatch)
    settings = Settings.load()
    text = settings.handed_over()
    monkeypatch.setenv(PREFIX + "SHARDS", "none")
    (tmp_path / "web_token").unlink()
    assert Settings.model_validate_json(text) == settings
    assert settings.web_token.get_secret_value() == "z" * 16
