"""Fire each alert of deploy/prometheus/rules.yml by a real fault: `make alerts`, or python -m tests.deploy.fire_alerts.

A real Prometheus scrapes real workers and an analyst every second and evaluates the rules, with all durations divided
by a factor (at least 5 s remain). Prints for each alert the fault, the seconds until it fired, and until it ended after
the repair. --only NAMES runs some of the faults.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics, admin, create
from streams.settings.settings import Settings
from tests.chaos.network import free_ports
from tests.deploy.stream import HOUR_S, Stream
from tests.support.analysts import AnalystProcess
from tests.support.prometheus import RULES, Prometheus, prometheus, scaled
from tests.support.simulated import repeated
from tests.support.workers import WorkerProcess, producer, wait_for

FACTOR = 240
FIRE_S, END_S = 90.0, 90.0
ENDS_LATE = {"GroundswellAudit": "5 to 10 minutes later: its metric is the largest error of that time"}
"""Alerts whose end is not awaited."""
ALERT = (
    b'{"alert":"x-1","user":"x","kind":"emerging","as_of":"2026-03-01T18:00:00Z","velocity":2.5,"level":1,"reach":7.3,'
    b'"percentile":96.4,"new_sharers":5,"content":"c","model":"0"}'
)


class SpoiledWorker(WorkerProcess):
    """A worker that spoils its memory at SIGUSR1."""

    def module(self) -> list[str]:
        """The module to run."""
        return ["tests.deploy.spoiled"]


class Address(HTTPServer):
    """The webhook's address; refuses every request while `refuses` is set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), AddressHandler)
        self.refuses = False
        threading.Thread(target=self.serve_forever, daemon=True).start()


class AddressHandler(BaseHTTPRequestHandler):
    """One request of the webhook."""

    server: Address

    def do_POST(self) -> None:
        """Accept or refuse."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503 if self.server.refuses else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Bench:
    """What faults act on.

    Args:
        folder: files of all processes.
        stack: closes everything.
        shards: shards of the graph, and workers.
    """

    def __init__(self, folder: Path, stack: ExitStack, kafka: EmbeddedKafka, shards: int) -> None:
        self.folder, self.address = folder, Address()
        ports = free_ports(shards + 1)
        self.settings = Settings.load(
            broker=kafka.address, prefix=f"b{ports[0]}.", shards=shards, partitions=2, analyst_port=ports[-1],
            checkpoints=f"file://{folder}/checkpoints", checkpoint_every_s=2, erase_within_s=600, audit_share=0.2,
            datadir=folder / "w0", web_port=ports[0], live_posts=150, watermark_idle_s=3, memory_mb=64,
            alert_webhook=SecretStr(f"http://127.0.0.1:{self.address.server_port}/"),
            session_timeout_s=45 if shards > 1 else 6, log_format="json",
        )  # fmt: skip
        self.topics = Topics(self.settings)
        with admin(self.settings) as client:
            create(client, self.topics.all())
        self.workers: list[WorkerProcess] = []
        for number in range(shards):
            own = {"datadir": folder / f"w{number}", "web_port": ports[number], "instance": f"w{number}"}
            self.workers.append(SpoiledWorker(self.settings.model_copy(update=own)))
        self.analyst = AnalystProcess(self.settings)
        self.analyst.log = folder / "analyst.log"
        for process in [*self.workers, self.analyst]:
            stack.callback(lambda process=process: process.process and process.kill())  # type: ignore[misc]
            process.start()
        for process in self.workers:
            wait_for(lambda process=process: process.get("/readyz")[0] == 200, 300, "a worker")  # type: ignore[misc]
        jobs = {"groundswell": ports[:-1], "groundswell-analyst": ports[-1:]}
        (folder / "prometheus").mkdir()
        rules = scaled(yaml.safe_load(RULES.read_text(encoding="utf-8")), FACTOR)
        self.server: Prometheus = stack.enter_context(prometheus(folder / "prometheus", jobs, rules))
        wait_for(self.server.healthy, 120, "the targets")
        self.stream = Stream(self.settings)
        self.stream.start()
        stack.callback(self.stream.stop)

    @property
    def worker(self) -> WorkerProcess:
        """The first worker."""
        return self.workers[0]

    def send(self, kind: str, *values: bytes, partition: int = 0) -> None:
        """Send messages as they are."""
        with producer(self.settings) as sender:
            for value in values:
                sender.send(self.topics.inputs[kind].name, value, partition=partition)  # type: ignore[index]

    def restart(self, process: WorkerProcess, **settings: Any) -> None:
        """Start a process again, with some other settings."""
        process.settings = process.settings.model_copy(update=settings)
        process.start()
        wait_for(lambda: process.get("/readyz")[0] == 200, 300, "a restart")


NUMBERS = itertools.count()


def share(time_s: float) -> bytes:
    """A share of another user each time, as a message; it names the author of the content."""
    event = {"type": "share", "time": time_s, "user": f"late{next(NUMBERS)}", "content": "late", "author": "a1"}
    return json.dumps(event | {"created": time_s - HOUR_S}).encode()


@contextmanager
def bad_producer(bench: Bench) -> Iterator[None]:
    """A producer sends messages that are no JSON."""
    with repeated(lambda: bench.send("share", *[b"{"] * 20), 0.3):
        yield


@contextmanager
def old_events(bench: Bench) -> Iterator[None]:
    """A producer sends events of 60 days ago."""
    with repeated(lambda: bench.send("share", share(time.time() - 60 * 24 * HOUR_S)), 0.5):
        yield


@contextmanager
def old_partition(bench: Bench) -> Iterator[None]:
    """One partition gets events that are eight hours behind the others."""
    with repeated(lambda: bench.send("share", share(bench.stream.now_s - 8 * HOUR_S), partition=1), 0.3):
        yield


@contextmanager
def killed_worker(bench: Bench) -> Iterator[None]:
    """The only worker is killed."""
    bench.worker.kill()
    yield
    bench.restart(bench.worker)


@contextmanager
def deleted_topic(bench: Bench) -> Iterator[None]:
    """An input topic is deleted."""
    with admin(bench.settings) as client:
        client.delete_topics([bench.topics.follow.name])
    yield
    with admin(bench.settings) as client:
        create(client, bench.topics.all())


@contextmanager
def slow_processor(bench: Bench) -> Iterator[None]:
    """The processes of worker and analyst run a fifth of the time, under load."""
    processes = [one.process for one in (bench.worker, bench.analyst)]

    def halt() -> None:
        for process in processes:
            assert process is not None
            process.send_signal(signal.SIGSTOP)
        time.sleep(0.8)
        for process in processes:
            assert process is not None
            process.send_signal(signal.SIGCONT)

    bench.stream.load = 1_500
    with repeated(halt, 0.2):
        yield
    bench.stream.load = 0


@contextmanager
def lost_checkpoint_folder(bench: Bench) -> Iterator[None]:
    """The address of checkpoints is no folder any more."""
    folder = bench.folder / "checkpoints"
    while not folder.is_file():  # the worker makes a folder that is missing
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(FileExistsError):
            folder.touch(exist_ok=False)
    yield
    folder.unlink()


@contextmanager
def late_erasure(bench: Bench) -> Iterator[None]:
    """A user is to be forgotten, and files are rewritten later than the rule allows."""
    bench.send("follow", json.dumps({"type": "forget", "time": bench.stream.now_s, "user": "f1"}).encode())
    yield
    assert bench.worker.stop() == 0
    bench.restart(bench.worker, erase_within_s=0)


@contextmanager
def bad_memory(bench: Bench) -> Iterator[None]:
    """Values in the worker's memory change by themselves."""
    assert bench.worker.process is not None
    bench.worker.process.send_signal(signal.SIGUSR1)
    yield


@contextmanager
def other_behaviour(bench: Bench) -> Iterator[None]:
    """Popular authors lose their readers, others gain them, and rising authors stop at once."""
    bench.stream.reversed_ = True
    yield
    bench.stream.reversed_ = False


@contextmanager
def refused_webhook(bench: Bench) -> Iterator[None]:
    """The address of the webhook answers 503."""
    bench.address.refuses = True
    with producer(bench.settings) as sender:
        sender.send(bench.topics.alert.name, ALERT, key=b"x")
    yield
    bench.address.refuses = False


@contextmanager
def killed_analyst(bench: Bench) -> Iterator[None]:
    """The analyst is killed."""
    bench.analyst.kill()
    yield
    bench.analyst.start()


@contextmanager
def halted_worker(bench: Bench) -> Iterator[None]:
    """The worker of one of two shards is halted, and the group waits for it."""
    process = bench.workers[1].process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    yield
    process.send_signal(signal.SIGCONT)


SLOW = ("GroundswellBudgetBurnsFast", "GroundswellBudgetBurnsSlowly", "GroundswellLagGrows", "GroundswellAnalystBehind")
ONE_SHARD: list[tuple[Any, tuple[str, ...]]] = [
    (other_behaviour, ("GroundswellRankCorrelation", "GroundswellAlertPrecision")),
    (bad_producer, ("GroundswellDeadLetters", "GroundswellDeadLetterRate")),
    (old_events, ("GroundswellExpired",)),
    (old_partition, ("GroundswellWatermarkStuck", "GroundswellLateShares")),
    (refused_webhook, ("GroundswellWebhook",)),
    (bad_memory, ("GroundswellAudit",)),
    (lost_checkpoint_folder, ("GroundswellCheckpoints", "GroundswellCheckpointAge")),
    (killed_analyst, ("GroundswellAnalystDown",)),
    (
        slow_processor,
        (
            "GroundswellBudgetBurnsFast",
            "GroundswellBudgetBurnsSlowly",
            "GroundswellLagGrows",
            "GroundswellAnalystBehind",
        ),
    ),
    (late_erasure, ("GroundswellForget",)),
    (deleted_topic, ("GroundswellNotReady",)),
    (killed_worker, ("GroundswellDown", "GroundswellShardMissing")),
]
TWO_SHARDS: list[tuple[Any, tuple[str, ...]]] = [(halted_worker, ("GroundswellAlertsAwaitShard",))]
NOT_FIRED = {
    "GroundswellWritesStalled": "needs a disk that is slower than the input",
    "GroundswellTrainerFails": "needs a training that fails",
    "GroundswellTrainerSilent": "needs three days after a decision of a trainer",
}
"""Alerts that no fault fires here; promtool's tests do (rules.test.yml)."""


def watch(bench: Bench, begin: float, names: tuple[str, ...], limit_s: float, *, firing: bool) -> dict[str, float]:
    """Seconds until each alert fires, or ends; those that do not within the limit are left out."""
    found: dict[str, float] = {}
    while len(found) < len(names) and time.monotonic() - begin < limit_s:
        now = bench.server.firing()
        for name in names:
            if (name in now) == firing:
                found.setdefault(name, time.monotonic() - begin)
        time.sleep(0.25)
    return found


def run(bench: Bench, faults: list[tuple[Any, tuple[str, ...]]], only: list[str]) -> list[str]:
    """Inject faults one after the other; returns the alerts that did not fire or end."""
    failed = []
    for fault, names in faults:
        if only and fault.__name__ not in only:
            continue
        before = bench.server.firing() & set(names)
        with fault(bench):
            fired = watch(bench, time.monotonic(), names, FIRE_S, firing=True)
            repair = time.monotonic()
        awaited = tuple(name for name in fired if name not in ENDS_LATE)
        ended = watch(bench, repair, awaited, END_S, firing=False)
        for name in names:
            what = (fault.__doc__ or "").strip().rstrip(".")
            end = ENDS_LATE.get(name, _seconds(ended, name))
            line = f"{name:28} fired {_seconds(fired, name)}  ended {end}  {what}"
            sys.stdout.write(line + (" (fired before the fault)\n" if name in before else "\n"))
            sys.stdout.flush()
            if name not in fired or (name not in ended and name not in ENDS_LATE):
                failed.append(name)
    return failed


def _seconds(found: dict[str, float], name: str) -> str:
    """Seconds as text."""
    return f"{found[name]:5.1f} s" if name in found else "    NOT"


def main() -> int:
    """Fire all alerts; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], help="names of faults")
    parser.add_argument("--settle-s", type=float, default=60.0, help="seconds of traffic before the first fault")
    arguments = parser.parse_args()
    failed = []
    for shards, faults in ((1, ONE_SHARD), (2, TWO_SHARDS)):
        if arguments.only and not {fault.__name__ for fault, _ in faults} & set(arguments.only):
            continue
        with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
            kafka = stack.enter_context(EmbeddedKafka(Path(name) / "kafka"))
            bench = Bench(Path(name), stack, kafka, shards)
            time.sleep(arguments.settle_s)
            sys.stdout.write(f"{shards} shard(s), durations divided by {FACTOR}; firing before any fault: "
                             f"{', '.join(sorted(bench.server.firing())) or 'none'}\n")  # fmt: skip
            sys.stdout.flush()
            failed += run(bench, faults, arguments.only)
    for alert, why in NOT_FIRED.items():
        sys.stdout.write(f"{alert:28} not fired here: {why}\n")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
