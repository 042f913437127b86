"""The outcomes of a worker beside those that `evaluate --alerts` computes: `python -m tests.load.alerts.record FILE`.

A real worker reads the events from Kafka and publishes alerts and outcomes; `groundswell evaluate --alerts` computes
the outcome of each alert from the events alone. Both are compared alert by alert, and with the counters of the worker.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from streams.embedded import EmbeddedKafka
from streams.messages.files import event_files
from tests.load.alert_equality import IDLE_S, READY_S, drained, installed, read_fired, rows_of, send


def evaluated(file: Path, until: str | None) -> dict[str, Any]:
    """Run `groundswell evaluate --alerts` and return its report."""
    command = [sys.executable, "-m", "streams.cli", "evaluate", str(file), "--alerts", "--json"]
    command += ["--until", until] if until else []
    report: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return report


def counters(metrics: str) -> dict[str, float]:
    """Return the worker's outcomes by kind, and the precision of both rules."""
    found = re.findall(
        r'^groundswell_alert_(?:outcomes_total|precision)\{[^}]*?"(\w+)"[^}]*\} (\S+)$', metrics, re.MULTILINE
    )
    return {name: float(value) for name, value in found}


def main() -> None:
    """Print the comparison of one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("file", type=Path)
    parser.add_argument("--until", default=None, help="only events before this time")
    parser.add_argument("--shards", type=int, default=1)
    options = parser.parse_args()
    rows = rows_of(list(event_files.mutations(options.file, until=options.until)))
    with (
        tempfile.TemporaryDirectory(prefix="groundswell-record-") as folder,
        EmbeddedKafka(Path(folder) / "k") as kafka,
        installed(kafka, Path(folder), "record", options.shards, IDLE_S) as process,
    ):
        send(process.settings, rows, 0)
        begin = time.monotonic()
        process.start()
        process.wait_ready(READY_S)
        drained(process, 1_800.0, IDLE_S + 4.0)
        seconds, production = time.monotonic() - begin, read_fired(process.settings).ends
        metrics = counters(process.get("/metrics")[1].decode())
    report = evaluated(options.file, options.until)
    record = {name: tuple(end) if end else None for name, end in report["record"].items()}
    result = {
        "events": len(rows),
        "worker_s": round(seconds, 1),
        "production": len(production),
        "evaluated": len(record),
        "only_in_production": len(production.keys() - record.keys()),
        "only_evaluated": len(record.keys() - production.keys()),
        "other_outcome": sum(production[name] != record[name] for name in production.keys() & record.keys()),
        "outcomes": report["outcomes"],
        "counters": metrics,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
