"""TLS and logins, against a broker that requires them: every command works, and a wrong setting gives one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from streams.errors import BrokerError
from streams.kafka import topics
from streams.kafka.access import preflight
from streams.settings.settings import Settings
from tests.support.secured import HOST, PASSWORD, STORE_PASSWORD, USER, Authority, SecuredKafka
from tests.support.workers import environment, wait_for, worker

WRONG = "tell-nobody-this"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that signs the certificates."""
    return Authority(tmp_path_factory.mktemp("authority") / "ours")


@pytest.fixture(scope="module")
def secured(authority: Authority) -> Iterator[SecuredKafka]:
    """A broker that requires a login or a certificate."""
    with SecuredKafka(authority) as broker:
        broker.add_user()
        yield broker


@pytest.fixture
def login(secured: SecuredKafka, authority: Authority, offline_settings: Settings) -> Settings:
    """Settings with a valid login."""
    right = {
        "broker": f"{HOST}:{secured.login_port}",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_username": USER,
        "sasl_password": SecretStr(PASSWORD),
        "ssl_cafile": str(authority.certificate),
    }
    return offline_settings.model_copy(update=right)


def command(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    line = [sys.executable, "-m", "streams.cli", *arguments]
    done = subprocess.run(line, env=environment(settings), capture_output=True, text=True, timeout=90, check=False)
    assert PASSWORD not in done.stdout + done.stderr
    return done


def test_everything_works_with_tls_and_a_login(login: Settings, tmp_path: Path) -> None:
    """Topics, worker, produce, tail and doctor over SASL_SSL with SCRAM; the password is in no output and no log."""
    created = command(login, "topics", "create")
    assert created.returncode == 0, created.stderr
    events = [{"type": "create", "time": 1_700_000_000 + n, "user": f"u{n % 5}", "content": f"c{n}"} for n in range(40)]
    file = tmp_path / "events.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    with worker(login) as process:
        sent = command(login, "produce", str(file), "--json")
        assert sent.returncode == 0, sent.stderr
        assert json.loads(sent.stdout)["events"] == len(events)
        tailed = command(login, "tail", "scores", "--from-beginning", "--limit", "5", "--json")
        assert {json.loads(line)["user"] for line in tailed.stdout.splitlines()} == {f"u{n}" for n in range(5)}
        described = command(login, "topics", "describe", "--json")
        assert described.returncode == 0, described.stderr
        wait_for(lambda: process.get("/readyz")[0] == 200, 10, "the worker to stay ready")
        examined = command(login.model_copy(update={"web_port": 0}), "doctor")
        assert examined.returncode == 0, examined.stdout
        assert process.stop() == 0
    assert PASSWORD not in process.log.read_text()


def test_a_wrong_setting_is_named(
    login: Settings, secured: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wrong setting gives a line that names it; no line contains a secret."""
    monkeypatch.setattr(preflight, "RETRY_UNTIL_S", 1.0)
    other = Authority(tmp_path / "other").certificate
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"sasl_password": SecretStr(WRONG)}, "refused the login: check .*SASL_USERNAME and .*SASL_PASSWORD"),
        ({"sasl_username": "nobody"}, "refused the login: check .*SASL_USERNAME and .*SASL_PASSWORD"),
        ({"sasl_mechanism": "PLAIN"}, "does not accept PLAIN: set .*SASL_MECHANISM"),
        ({"ssl_cafile": str(other)}, "is not trusted .*: set .*SSL_CAFILE"),
        ({"broker": f"localhost:{secured.login_port}"}, "is for another host: set .*BROKER"),
        ({"security_protocol": "PLAINTEXT"}, "does not answer PLAINTEXT .*: check .*SECURITY_PROTOCOL"),
        ({"broker": secured.address}, "does not answer SASL_SSL .*: check .*SECURITY_PROTOCOL"),
        ({"broker": f"{HOST}:{secured.certificate_port}", "security_protocol": "SSL"}, "check .*SSL_CERTFILE"),
    ]
    for update, line in wrong:
        with pytest.raises(BrokerError, match=line) as caught, topics.admin(login.model_copy(update=update)):
            pass
        assert "\n" not in str(caught.value)
        assert WRONG not in str(caught.value)
        assert PASSWORD not in str(caught.value)


def test_a_refused_worker_names_the_setting(login: Settings) -> None:
    """A wrong password: exit code 1, one line with the setting and without the password."""
    done = command(login.model_copy(update={"sasl_password": SecretStr(WRONG)}), "worker")
    assert done.returncode == 1
    assert "GROUNDSWELL_SASL_PASSWORD" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert WRONG not in done.stdout + done.stderr


def test_a_client_certificate_is_accepted(
    secured: SecuredKafka, authority: Authority, offline_settings: Settings
) -> None:
    """A broker that requires a certificate accepts one signed by its authority."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is missing; it extracts the key from keytool's store")
    store = authority.sign("client")
    both = authority.folder / "client-both.pem"
    line = [openssl, "pkcs12", "-in", str(store), "-passin", f"pass:{STORE_PASSWORD}", "-nodes", "-out", str(both)]
    subprocess.run(line, check=True, capture_output=True)
    update = {
        "broker": f"{HOST}:{secured.certificate_port}",
        "security_protocol": "SSL",
        "ssl_cafile": str(authority.certificate),
        "ssl_certfile": str(both),
    }
    settings = offline_settings.model_copy(update=update)
    with topics.admin(settings) as client:
        created = topics.create(client, topics.Topics(settings).all())
    assert len(created) == len(topics.Topics(settings).all())
