"""SASL OAUTHBEARER: tokens from a token endpoint by client credentials, or from a file, for both Kafka clients.

A token of the endpoint is kept until four fifths of its life are over and shared by all clients of the process. A file
is read for every login, because whatever renews the token replaces it there (as Kubernetes does with projected
tokens). Clients ask when they connect; Kafka ends a connection whose token has expired, and the next one takes a new
token.
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
"""Part of its life after which a token is replaced."""
LIFE_S = 300.0
"""Of a token that does not say when it expires."""
NAMES = "GROUNDSWELL_SASL_OAUTH_"
_TOKEN = re.compile(r"[!-~]+")


class TokenError(KafkaError, BrokerError):
    """There is no token to log in with. Of both trees: aiokafka tries again later, a command ends with it."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Source:
    """Where tokens come from: an endpoint or a file. cafile: the certificates to trust; empty: the system's."""

    url: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    scope: str = ""
    cafile: str = ""
    file: str = ""


@dataclass(frozen=True)
class Token:
    """A token. fresh_until, until: Unix time of its renewal and its end; 0: not kept."""

    text: str = field(repr=False)
    fresh_until: float
    until: float

    @property
    def claims(self) -> dict[str, Any]:
        """What a JWT says, unchecked; empty if it is none."""
        try:
            part = self.text.split(".")[1]
            found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        except (IndexError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


class Tokens:
    """The present token of a source; safe from any thread."""

    def __init__(self, source: Source, clock: Callable[[], float] = time.time) -> None:
        self._source, self._clock = source, clock
        self._lock = threading.Lock()
        self._token: Token | None = None

    def token(self) -> str:
        """A token that has not expired.

        Raises:
            TokenError: there is none; the line names the setting to look at.
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
        """The user of the last token, as it says itself."""
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
            raise TokenError(f"the token in {path} expired {ago_s:.0f} s ago: let it be renewed, see {NAMES}TOKEN_FILE")
        return token

    def _from_endpoint(self) -> Token:
        asked = self._clock()
        answer = self._ask()
        text = answer.get("access_token")
        if not isinstance(text, str) or not _TOKEN.fullmatch(text):
            why = answer.get("error") or "no access_token"
            raise TokenError(f"the token endpoint {self._source.url} gave no token ({why}): check {NAMES}TOKEN_URL")
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
        """What the endpoint answers."""
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
                found = json.loads(answer.read(ANSWER_BYTES))
        except HTTPError as error:
            raise self._answered(error) from (error if error.code >= 500 else None)
        except (URLError, HTTPException, OSError) as error:
            cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, OSError) else error
            setting = "CAFILE" if isinstance(cause, ssl.SSLCertVerificationError) else "TOKEN_URL"
            why = (cause.strerror if isinstance(cause, OSError) else None) or one_line(cause)
            line = f"the token endpoint {source.url} cannot be asked ({why}): check {NAMES}{setting}"
            raise TokenError(line) from cause
        except ValueError:
            raise TokenError(f"the token endpoint {source.url} answers no JSON: check {NAMES}TOKEN_URL") from None
        return found if isinstance(found, dict) else {}

    def _answered(self, error: HTTPError) -> TokenError:
        """The line for an answer that is none; what it holds is not repeated, but for OAuth's own slug."""
        with error:
            try:
                slug = json.loads(error.read(ANSWER_BYTES)).get("error")
            except (ValueError, AttributeError, OSError):
                slug = None
        said = f", {slug}" if isinstance(slug, str) and re.fullmatch(r"[a-z_]{1,40}", slug) else ""
        setting = "CLIENT_ID, _CLIENT_SECRET and _SCOPE" if error.code in {400, 401, 403} else "TOKEN_URL"
        return TokenError(f"the token endpoint {self._source.url} refused ({error.code}{said}): check {NAMES}{setting}")


@lru_cache(maxsize=8)
def _shared(source: Source) -> Tokens:
    return Tokens(source)


def tokens(settings: Settings) -> Tokens:
    """The tokens of these settings, shared by all clients of the process."""
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
    """What kafka-python asks for tokens."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._tokens = tokens(settings)

    def token(self) -> str:
        """The present token."""
        return self._tokens.token()


class AiokafkaTokens(AbstractTokenProvider):
    """What aiokafka asks for tokens."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = tokens(settings)
        aiokafka_conn.OAuthAuthenticator = StrictAuthenticator

    async def token(self) -> str:
        """The present token."""
        return await asyncio.to_thread(self._tokens.token)


_Authenticator: Any = aiokafka_conn.OAuthAuthenticator


class StrictAuthenticator(_Authenticator):
    """aiokafka's, which takes the broker's answer that a token is not valid for a success, and loses the connection."""

    async def step(self, payload: bytes | None) -> Any:
        """Send the token; what comes back is empty or a refusal."""
        if self._token_sent and payload:
            raise SaslAuthenticationFailed(payload.decode(errors="replace"))
        return await super().step(payload)
