"""SASL OAUTHBEARER against a broker that accepts tokens: an endpoint, a file, renewal, and errors in one line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from streams.errors import BrokerError, SettingsError
from streams.kafka import topics
from streams.kafka.topics import Topics
from streams.settings import oauth
from streams.settings.oauth import Source, TokenError, Tokens
from streams.settings.settings import Settings
from tests.support.tokens import CLIENT, SCOPE, SECRET, TokenEndpoint, TokenKafka, jwt
from tests.support.workers import producer, read_all, wait_for, worker

LIFE_S = 6.0
WRONG = "not-the-secret"


@pytest.fixture(scope="module")
def broker() -> Iterator[TokenKafka]:
    """Start a broker that accepts tokens."""
    with TokenKafka() as kafka:
        yield kafka


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    """Start a token endpoint."""
    with TokenEndpoint() as found:
        yield found


@pytest.fixture
def login(broker: TokenKafka, endpoint: TokenEndpoint, offline_settings: Settings) -> Settings:
    """Return settings that request tokens from the endpoint."""
    update = {
        "broker": broker.login,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_oauth_token_url": endpoint.url,
        "sasl_oauth_client_id": CLIENT,
        "sasl_oauth_client_secret": SecretStr(SECRET),
        "sasl_oauth_scope": SCOPE,
    }
    return offline_settings.model_copy(update=update)


def event(number: int) -> bytes:
    """Return a create of user `u<number>`."""
    return json.dumps({"type": "create", "time": 1_700_000_000, "user": f"u{number}", "content": f"c{number}"}).encode()


def test_a_worker_outlives_its_tokens(login: Settings, endpoint: TokenEndpoint) -> None:
    """Commands, a worker and a producer log in with tokens; after several have expired each event has one score."""
    endpoint.life_s = LIFE_S
    with worker(login) as process:
        name = Topics(login).create.name
        begin, number = time.monotonic(), 0
        while time.monotonic() < begin + 3 * LIFE_S:
            with producer(login) as sender:
                sender.send(name, event(number))
            wait_for(lambda: process.get(f"/api/v1/users/u{number}")[0] == 200, 20, f"the score of u{number}")  # noqa: B023 - called at once
            number += 1
            time.sleep(1.0)
        assert process.get("/readyz")[0] == 200
        assert process.stop() == 0
    scored = [record.key.decode() for record in read_all(login, [Topics(login).score.name])]
    assert set(scored) == {f"u{n}" for n in range(number)}
    assert endpoint.asked > 3
    log = process.log.read_text()
    assert SECRET not in log
    assert not any(token in log for token in endpoint.tokens)
    assert "Traceback" not in log
    assert "removed" not in log


def test_a_token_file_is_read_again(login: Settings, tmp_path: Path) -> None:
    """A file replaces the endpoint, and is replaced as Kubernetes does; errors are one line."""
    file = tmp_path / "token"
    update: dict[str, Any] = {"sasl_oauth_token_url": "", "sasl_oauth_token_file": str(file)}
    settings = login.model_copy(update=update)
    lines = {
        None: "the token file .* cannot be read .*TOKEN_FILE",
        "": "the token file .* holds no token",
        jwt("me", -5.0): "the token in .* expired [5-9] s ago",
        "not-a-jwt": "refused the token of the owner of the token in .*: check the GROUNDSWELL_SASL_OAUTH_ settings",
    }
    for text, line in lines.items():
        if text is not None:
            file.write_text(text, encoding="ascii")
        with pytest.raises(BrokerError, match=line) as caught, topics.admin(settings):
            pass
        assert "\n" not in str(caught.value)
    new = tmp_path / "new"
    new.write_text(jwt("me", 60.0) + "\n", encoding="ascii")
    new.replace(file)
    with topics.admin(settings) as client:
        assert isinstance(client.list_topics(), list)
    assert oauth.tokens(settings).user == "me"


def test_errors_of_an_endpoint_are_one_line(login: Settings, endpoint: TokenEndpoint) -> None:
    """A wrong secret, an unreachable endpoint and an invalid answer are named, without secrets."""

    def line(settings: Settings) -> str:
        with pytest.raises(BrokerError) as caught, topics.admin(settings):
            pass
        text = str(caught.value)
        assert not any(secret in text for secret in ("\n", SECRET, WRONG, "nothing of this"))
        return text

    wrong = login.model_copy(update={"sasl_oauth_client_secret": SecretStr(WRONG)})
    assert "refused (401, invalid_client): check GROUNDSWELL_SASL_OAUTH_CLIENT_ID" in line(wrong)
    assert "refused (400, invalid_scope)" in line(login.model_copy(update={"sasl_oauth_scope": "other"}))
    away = login.model_copy(update={"sasl_oauth_token_url": "http://127.0.0.1:1/token"})
    assert "cannot be reached (Connection refused): check GROUNDSWELL_SASL_OAUTH_TOKEN_URL" in line(away)
    tls = login.model_copy(update={"sasl_oauth_token_url": endpoint.url.replace("http", "https")})
    assert "cannot be reached" in line(tls)
    cases = {
        (200, b'{"token_type": "Bearer"}'): "returned no token (no access_token)",
        (200, b'{"access_token": "two words"}'): "returned no token",
        (200, b"<html>"): "returned no JSON",
        (302, b""): "refused (302)",
        (503, b""): "refused (503)",
        (200, b'{"access_token": "not-a-jwt"}'): f"refused the token of {CLIENT}",
    }
    for number, (answer, text) in enumerate(cases.items()):
        endpoint.answer = answer
        # Each with tokens of its own: what was given before is kept.
        assert text in line(login.model_copy(update={"sasl_oauth_scope": f"{SCOPE}{number}"}))


def test_a_token_is_renewed_before_it_expires(endpoint: TokenEndpoint) -> None:
    """A token is used for four fifths of its life, then a new one; the old one if none is issued."""
    now = 1_000.0
    endpoint.life_s = 100.0
    tokens = Tokens(Source(endpoint.url, CLIENT, SECRET, SCOPE), clock=lambda: now)
    first = tokens.token()
    now += 79
    assert tokens.token() == first
    assert endpoint.asked == 1
    now += 2
    endpoint.answer = 503, b""
    assert tokens.token() == first
    now += 20
    with pytest.raises(TokenError, match="503"):
        tokens.token()
    endpoint.answer = None
    assert tokens.token() != first
    assert SECRET not in repr(tokens._source)


@pytest.mark.parametrize("proxy", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_loopback_address_bypasses_the_proxy(
    endpoint: TokenEndpoint, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy in the environment is not used for it."""
    monkeypatch.setenv(proxy, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert Tokens(Source(endpoint.url, CLIENT, SECRET, SCOPE)).token()


def test_conflicting_settings_are_named() -> None:
    """The line names the settings that a login by token needs; no output holds a secret."""
    given: dict[str, Any] = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}
    with pytest.raises(SettingsError, match=r"one of GROUNDSWELL_SASL_OAUTH_TOKEN_URL and .*_TOKEN_FILE is needed"):
        Settings.load(**given)
    with pytest.raises(SettingsError, match="one of"):
        Settings.load(**given, sasl_oauth_token_url="https://a/b", sasl_oauth_token_file="c")
    with pytest.raises(SettingsError, match=r"CLIENT_ID and GROUNDSWELL_SASL_OAUTH_CLIENT_SECRET are needed"):
        Settings.load(**given, sasl_oauth_token_url="https://a/b", sasl_oauth_client_id="c")
    with pytest.raises(SettingsError, match="SASL_OAUTH_TOKEN_URL: must be a URL that begins with https"):
        Settings.load(**given, sasl_oauth_token_url="https://me:mine@a/b")
    right = Settings.load(
        **given,
        sasl_oauth_token_url="https://a/b",
        sasl_oauth_client_id="c",
        sasl_oauth_client_secret=SecretStr(SECRET),
    )
    assert right.public()["sasl_oauth_client_secret"] == "***"
    assert SECRET not in repr(right)
    with suppress(TypeError):
        assert SECRET not in json.dumps(right.public())
