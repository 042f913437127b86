"""A local token endpoint (OAuth 2, client credentials); its tokens are unsigned JWTs."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote

from tests.support.guarded import GuardedKafka

CLIENT, SECRET = "scorer", "s3cret/with:signs"
SCOPE = "kafka"


def jwt(user: str, life_s: float) -> str:
    """Make an unsigned JWT in the form that Kafka's unsecured validator accepts."""
    now = time.time()
    parts = {"alg": "none"}, {"sub": user, "iat": now, "exp": now + life_s}
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


class TokenEndpoint:
    """The endpoint. life_s: lifetime of its tokens; asked: number of requests; answer: response instead of a token."""

    def __init__(self) -> None:
        self.life_s, self.asked = 3_600.0, 0
        self.tokens: list[str] = []
        self.answer: tuple[int, bytes] | None = None
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            """Passes requests to the endpoint."""

            def do_POST(self) -> None:
                """Answer a token request."""
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, text = endpoint.respond(self.headers.get("Authorization", ""), parse_qs(body))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if status == 302:
                    self.send_header("Location", f"{endpoint.url}/elsewhere")
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_arguments: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def respond(self, authorization: str, form: dict[str, list[str]]) -> tuple[int, bytes]:
        """Status and body for a request."""
        self.asked += 1
        if self.answer is not None:
            return self.answer
        kind, _, login = authorization.partition(" ")
        client, _, secret = base64.b64decode(login).decode().partition(":")
        if (kind, unquote(client), unquote(secret)) != ("Basic", CLIENT, SECRET):
            return 401, b'{"error": "invalid_client", "error_description": "nothing of this is shown"}'
        if form != {"grant_type": ["client_credentials"], "scope": [SCOPE]}:
            return 400, b'{"error": "invalid_scope"}'
        self.tokens.append(jwt(CLIENT, self.life_s))
        found = {"access_token": self.tokens[-1], "token_type": "Bearer", "expires_in": self.life_s}
        return 200, json.dumps(found).encode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_about: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class TokenKafka(GuardedKafka):
    """A broker whose `login` listener accepts tokens, and where every user has all rights."""

    def security(self) -> dict[str, str]:
        """The configuration of logins."""
        module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
        jaas = f'{module} required unsecuredLoginStringClaim_sub="broker";'
        return {
            "sasl.enabled.mechanisms": "OAUTHBEARER",
            "listener.name.login.oauthbearer.sasl.jaas.config": jaas,
        }
