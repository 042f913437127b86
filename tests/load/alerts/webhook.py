"""The webhook of a worker against a server with faults: `python -m tests.load.alerts.webhook FILE`.

A real worker reads the events and sends its alerts to an HTTP server that refuses, hangs, is not there, and comes back,
while the worker is killed twice. Then every alert of the topic must have been accepted once or more, in the order of
its user.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics
from streams.messages.files import event_files
from tests.load.alert_equality import IDLE_S, READY_S, installed, rows_of, send
from tests.support.workers import WorkerProcess, read_all, wait_for, wait_quiet

MODES = ("accept", "refuse", "hang", "gone")
HANG_S = 30.0


class Address:
    """A server that answers by its `mode`; when it is `gone`, no one listens."""

    def __init__(self) -> None:
        self.mode, self.answers = "accept", Counter[str]()
        self.accepted: list[dict[str, Any]] = []
        self._server = self._listen(0)
        self.port = self._server.server_address[1]

    def _listen(self, port: int) -> ThreadingHTTPServer:
        address = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                address.answers[mode := address.mode] += 1
                if mode == "hang":
                    time.sleep(HANG_S)
                    return
                if mode == "accept":
                    address.accepted.append(json.loads(content))
                self.send_response(200 if mode == "accept" else 503)
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def set(self, mode: str) -> None:
        """Change the mode; the socket is closed in `gone`."""
        if mode == "gone":
            self._server.shutdown()
            self._server.server_close()
        elif self.mode == "gone":
            self._server = self._listen(self.port)
        self.mode = mode


def faults(address: Address, process: WorkerProcess, ended: threading.Event) -> None:
    """Change the mode every few seconds, and kill the worker in the second and the fourth fault."""
    for number, mode in enumerate(("accept", "refuse", "accept", "hang", "accept", "gone", "accept", "hang")):
        address.set(mode)
        if ended.wait(6.0 if mode != "hang" else 14.0):
            return
        if number in (3, 5):
            process.kill()
            process.start()
            process.wait_ready(READY_S)


def main() -> None:
    """Print what arrived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("file", type=Path)
    parser.add_argument("--until", default=None, help="only events before this time")
    parser.add_argument("--rate", type=float, default=300.0, help="events a second")
    options = parser.parse_args()
    rows, address = rows_of(list(event_files.mutations(options.file, until=options.until))), Address()
    with (
        tempfile.TemporaryDirectory(prefix="groundswell-webhook-") as folder,
        EmbeddedKafka(Path(folder) / "k") as kafka,
        installed(kafka, Path(folder), "webhook", 1, IDLE_S) as process,
    ):
        url = SecretStr(f"http://127.0.0.1:{address.port}/hook")
        process.settings = process.settings.model_copy(update={"alert_webhook": url})
        process.start()
        process.wait_ready(READY_S)
        time.sleep(8.0)  # alerts from before the webhook has its positions are not sent
        ended = threading.Event()
        trouble = threading.Thread(target=faults, args=(address, process, ended))
        trouble.start()
        send(process.settings, rows, options.rate)
        trouble.join()
        address.set("accept")
        wait_quiet(process.settings, 600.0, IDLE_S + 4.0)
        records = read_all(process.settings, [Topics(process.settings).alert.name])
        published = [json.loads(record.value) for record in sorted(records, key=lambda record: record.timestamp)]
        names = {alert["alert"] for alert in published}
        wait_for(lambda: names <= {alert["alert"] for alert in address.accepted}, 180.0, "every alert")
        process.kill()
    result = {
        "alerts": len(names),
        "accepted": len(address.accepted),
        "lost": len(names - {alert["alert"] for alert in address.accepted}),
        "repeated": len(address.accepted) - len({alert["alert"] for alert in address.accepted}),
        "users_out_of_order": out_of_order(published, address.accepted),
        "requests": dict(address.answers),
        "text": address.accepted[0]["text"],
    }
    sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")


def out_of_order(published: list[dict[str, Any]], accepted: list[dict[str, Any]]) -> int:
    """Return the number of users whose alerts were first accepted in another order than they were published in."""
    orders: list[dict[str, list[str]]] = []
    for alerts in (published, accepted):
        by_user: dict[str, list[str]] = {}
        for alert in {alert["alert"]: alert for alert in reversed(alerts)}.values():
            by_user.setdefault(alert["user"], []).insert(0, alert["alert"])
        orders.append(by_user)
    return sum(orders[0][user] != orders[1].get(user) for user in orders[0])


if __name__ == "__main__":
    main()
