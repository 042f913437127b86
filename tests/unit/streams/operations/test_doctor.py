"""The check of the analyst: its port is free, an analyst answers there, or something else has it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from streams.errors import SettingsError
from streams.operations import doctor
from streams.settings.settings import Settings


class Answer(BaseHTTPRequestHandler):
    """Answers every request with 503 and the body of the server."""

    body = b""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(503)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """A web server on a port of its own."""
    here = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=here.serve_forever)
    thread.start()
    yield here
    here.shutdown()
    thread.join()
    here.server_close()


def test_the_analyst_is_found(offline_settings: Settings, server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A free port, an analyst that is not ready yet, a stranger on its port, and no library for one."""
    free = offline_settings.model_copy(update={"analyst_port": offline_settings.web_port})
    assert "is free" in doctor.analyst(free)
    taken = offline_settings.model_copy(update={"analyst_port": server.server_address[1]})
    monkeypatch.setattr(Answer, "body", json.dumps({"ready": False, "detail": "rebuilding the graph"}).encode())
    assert doctor.analyst(taken).endswith("rebuilding the graph")
    for stranger in (b"", b"hello", b"[1]", b'{"error": "x"}'):
        monkeypatch.setattr(Answer, "body", stranger)
        with pytest.raises(SettingsError, match="GROUNDSWELL_ANALYST_PORT"):
            doctor.analyst(taken)
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    assert "groundswell[analyst]" in doctor.analyst(taken)
