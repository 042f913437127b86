"""SASL OAUTHBEARER: tokens for both Kafka clients, from a token endpoint (client credentials) or from a file.

A token of the endpoint is cached for four fifths of its lifetime and shared by all clients of the process. A file is
read at every login, because the file is replaced when the token is renewed (as Kubernetes does with projected tokens).
Clients request a token when they connect; Kafka closes a connection whose token has expired, and the client connects
again with a new token.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request

from aiokafka import conn as aiokafka_conn
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError, SaslAuthenticationFailed
from kafka.net.sasl.oauth import AbstractTokenProvider as OtherTokenProvider

from streams.errors import BrokerError, one_line
from streams.settings.direct_http import opener

if TYPE_CHECKING:
    from streams.settings.settings import Settings

log = logging.getLogger(__name__)

MECHANISM = "OAUTHBEARER"
ANSWER_S = 10.0
ANSWER_BYTES = 1 << 20
FRESH = 0.8
"""Fraction of its lifetime after which a token is renewed."""
LIFE_S = 300.0
"""Lifetime of a token without an expiry time."""
NAMES = "GROUNDSWELL_SASL_OAUTH_"
_TOKEN = re.compile(r"[!-~]+")


class TokenError(KafkaError, BrokerError):
    """There is no token to log in with; a KafkaError, so that aiokafka retries, and a BrokerError for commands."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Source:
    """Where tokens come from: an endpoint or a file.

    Attributes:
        url: the token endpoint; empty if tokens come from a file.
        client_id: the client at the endpoint.
        client_secret: its secret.
        scope: the scope to request; empty: none.
        cafile: trusted certificates for the endpoint; empty: the system's.
        file: the token file; empty if tokens come from an endpoint.
    """

    url: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    scope: str = ""
    cafile: str = ""
    file: str = ""


@dataclass(frozen=True)
class Token:
    """A token.

    Attributes:
        text: the token itself.
        fresh_until: Unix time after which it is renewed; 0: it is not cached.
        until: Unix time at which it expires; 0: it is not cached.
    """

    text: str = field(repr=False)
    fresh_until: float
    until: float

    @property
    def claims(self) -> dict[str, Any]:
        """The claims of a JWT, not verified; empty if the token is no JWT."""
        try:
            part = self.text.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        except (IndexError, ValueError):
            return {}
        return claims if isinstance(claims, dict) else {}


class Tokens:
    """Caches the current token of a source; thread-safe."""

    def __init__(self, source: Source, clock: Callable[[], float] = time.time) -> None:
        self._source, self._clock = source, clock
        self._lock = threading.Lock()
        self._token: Token | None = None

    def token(self) -> str:
        """Return a token that has not expired.

        Raises:
            TokenError: no token can be had; the message names the setting to check.
        """
        with self._lock:
            now, token = self._clock(), self._token
            if token is None or now >= token.fresh_until:
                try:
                    token = self._from_file() if self._source.file else self._from_endpoint()
                except TokenError as error:
                    if token is None or now >= token.until:
                        raise
                    log.warning("token_not_renewed", extra={"why": str(error), "valid_s": round(token.until - now)})
            self._token = token
            return token.text

    @property
    def user(self) -> str:
        """The user of the last token, from its claims; else the client id or the token file."""
        claimed = self._token.claims.get("sub") if self._token else None
        if not claimed and self._source.file:
            return f"the owner of the token in {self._source.file}"
        return str(claimed or self._source.client_id)

    def _from_file(self) -> Token:
        path = Path(self._source.file)
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise TokenError(
                f"the token file {path} cannot be read ({one_line(error)}): set {NAMES}TOKEN_FILE"
            ) from None
        if not _TOKEN.fullmatch(text):
            raise TokenError(f"the token file {path} holds no token: set {NAMES}TOKEN_FILE")
        token = Token(text, 0.0, 0.0)
        expires = token.claims.get("exp")
        if isinstance(expires, int | float) and expires <= self._clock():
            ago_s = self._clock() - expires
            raise TokenError(f"the token in {path} expired {ago_s:.0f} s ago: renew the file of {NAMES}TOKEN_FILE")
        return token

    def _from_endpoint(self) -> Token:
        asked = self._clock()
        answer = self._ask()
        text = answer.get("access_token")
        if not isinstance(text, str) or not _TOKEN.fullmatch(text):
            why = answer.get("error") or "no access_token"
            raise TokenError(f"the token endpoint {self._source.url} returned no token ({why}): check {NAMES}TOKEN_URL")
        life = answer.get("expires_in")
        try:
            life_s = float(life) if life is not None else 0.0
        except (TypeError, ValueError):
            life_s = 0.0
        if life_s <= 0:
            expires = Token(text, 0.0, 0.0).claims.get("exp")
            life_s = expires - asked if isinstance(expires, int | float) else LIFE_S
        return Token(text, asked + FRESH * life_s, asked + life_s)

    def _ask(self) -> dict[str, Any]:
        """Request a token; returns the fields of the endpoint's response."""
        source = self._source
        form = {"grant_type": "client_credentials"} | ({"scope": source.scope} if source.scope else {})
        login = f"{quote(source.client_id, safe='')}:{quote(source.client_secret, safe='')}"
        headers = {
            "Authorization": f"Basic {base64.b64encode(login.encode()).decode()}",
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        request = Request(source.url, urlencode(form).encode(), headers)  # noqa: S310 - settings allow http and https
        try:
            context = ssl.create_default_context(cafile=source.cafile or None)
        except OSError as error:
            raise TokenError(f"the certificates cannot be read ({one_line(error)}): set {NAMES}CAFILE") from None
        try:
            with opener(source.url, context).open(request, timeout=ANSWER_S) as answer:
                fields = json.loads(answer.read(ANSWER_BYTES))
        except HTTPError as error:
            raise self._answered(error) from (error if error.code >= 500 else None)
        except (URLError, HTTPException, OSError) as error:
            cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, OSError) else error
            setting = "CAFILE" if isinstance(cause, ssl.SSLCertVerificationError) else "TOKEN_URL"
            why = (cause.strerror if isinstance(cause, OSError) else None) or one_line(cause)
            line = f"the token endpoint {source.url} cannot be reached ({why}): check {NAMES}{setting}"
            raise TokenError(line) from cause
        except ValueError:
            raise TokenError(f"the token endpoint {source.url} returned no JSON: check {NAMES}TOKEN_URL") from None
        return fields if isinstance(fields, dict) else {}

    def _answered(self, error: HTTPError) -> TokenError:
        """Return the error for an HTTP error status; of the response only OAuth's error code is repeated."""
        with error:
            try:
                slug = json.loads(error.read(ANSWER_BYTES)).get("error")
            except (ValueError, AttributeError, OSError):
                slug = None
        code = f", {slug}" if isinstance(slug, str) and re.fullmatch(r"[a-z_]{1,40}", slug) else ""
        setting = "CLIENT_ID, _CLIENT_SECRET and _SCOPE" if error.code in {400, 401, 403} else "TOKEN_URL"
        return TokenError(f"the token endpoint {self._source.url} refused ({error.code}{code}): check {NAMES}{setting}")


@lru_cache(maxsize=8)
def _shared(source: Source) -> Tokens:
    return Tokens(source)


def tokens(settings: Settings) -> Tokens:
    """Return the token cache of these settings, shared by all clients of the process."""
    return _shared(
        Source(
            settings.sasl_oauth_token_url,
            settings.sasl_oauth_client_id,
            settings.sasl_oauth_client_secret.get_secret_value(),
            settings.sasl_oauth_scope,
            settings.sasl_oauth_cafile,
            settings.sasl_oauth_token_file,
        )
    )


class KafkaTokens(OtherTokenProvider):
    """The token provider for kafka-python."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._tokens = tokens(settings)

    def token(self) -> str:
        """Return the current token."""
        return self._tokens.token()


class AiokafkaTokens(AbstractTokenProvider):
    """The token provider for aiokafka."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = tokens(settings)
        aiokafka_conn.OAuthAuthenticator = StrictAuthenticator

    async def token(self) -> str:
        """Return the current token."""
        return await asyncio.to_thread(self._tokens.token)


_Authenticator: Any = aiokafka_conn.OAuthAuthenticator


class StrictAuthenticator(_Authenticator):
    """Raises if the broker rejects the token; aiokafka's own class treats the rejection as a success."""

    async def step(self, payload: bytes | None) -> Any:
        """Send the token; a response that is not empty is a rejection."""
        if self._token_sent and payload:
            raise SaslAuthenticationFailed(payload.decode(errors="replace"))
        return await super().step(payload)
