"""How fast an analyst answers who shares next: `python -m tests.load.share_predictions FILE --model DIR`.

The events of a file go through Kafka, a worker and an analyst with an artifact of `groundswell train-next`. Each of the
newest contents that expose enough users is asked about as many named users. Prints one JSON object: how many questions,
and milliseconds of an answer over HTTP.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pyarrow.parquet

from streams.embedded import EmbeddedKafka
from streams.messages.files import event_files
from streams.settings.settings import Settings
from tests.chaos.network import free_ports
from tests.load.alert_equality import installed, rows_of, send
from tests.support.analysts import AnalystProcess
from tests.support.workers import wait_for, wait_quiet

READY_S = 600.0
NEWEST = 2_000
"""Contents, of which those that expose enough users are asked about."""


def ask(settings: Settings, question: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of `POST /api/v1/predict/share`; without candidates if it is an error."""
    address = f"http://127.0.0.1:{settings.web_port}/api/v1/predict/share"
    try:
        with urlopen(Request(address, data=json.dumps(question).encode(), method="POST"), timeout=60) as answer:
            read: dict[str, Any] = json.load(answer)
    except OSError:
        return {"candidates": 0}
    return read


def measure(settings: Settings, contents: list[str], users: int, questions: int) -> dict[str, Any]:
    """Ask about the newest contents until there are enough answers."""
    times = []
    for content in contents:
        first = ask(settings, {"content": content, "limit": users})
        if first["candidates"] < users:
            continue
        named = [one["user"] for one in first["predictions"]]
        begin = time.perf_counter()
        answer = ask(settings, {"content": content, "users": named})
        times.append((time.perf_counter() - begin) * 1e3)
        assert [one["user"] for one in answer["predictions"]] == named
        if len(times) == questions:
            break
    assert times, "no content exposes as many users"
    p50, p95, worst = np.percentile(times, (50, 95, 100)).round(1).tolist()
    return {"questions": len(times), "users": users, "ms_p50": p50, "ms_p95": p95, "ms_max": worst}


def main() -> int:
    """Run a worker and an analyst on the file, and measure; returns 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="an artifact of groundswell train-next")
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--questions", type=int, default=200)
    options = parser.parse_args()
    table = pyarrow.parquet.read_table(options.file, columns=["type", "time", "content"])
    creates = [row for row in table.to_pylist() if row["type"] == "create"]
    newest = [row["content"] for row in sorted(creates, key=lambda row: -row["time"])[:NEWEST]]
    with (
        tempfile.TemporaryDirectory(prefix="groundswell-") as name,
        EmbeddedKafka(Path(name) / "kafka") as kafka,
        installed(kafka, Path(name), "next", 1, 4.0) as worker,
    ):
        worker.start()
        send(worker.settings, rows_of(list(event_files.mutations(options.file))), 0)
        wait_quiet(worker.settings, READY_S, 5.0)
        port = free_ports(1)[0]
        own = {"web_port": port, "analyst_port": port, "analyst_next_model": str(options.model.absolute())}
        analyst = AnalystProcess(worker.settings.model_copy(update=own))
        analyst.log = Path(name) / "analyst.log"
        analyst.start()
        try:
            analyst.wait_ready(READY_S)
            wait_for(lambda: ask(analyst.settings, {"content": newest[-1]})["candidates"] > 0, READY_S, "an index")
            result = measure(analyst.settings, newest, options.users, options.questions)
        finally:
            analyst.kill()
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
