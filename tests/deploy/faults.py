"""Faults for `tests.deploy.fire_alerts`: what breaks a worker, an analyst or a trainer, and repairs it.

Each fault is a context manager; its docstring is its description in the table. It may yield the moment (of the
monotonic clock) from which the time until an alert counts, if that is not now.
"""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
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
from tests.support import tidy
from tests.support.analysts import AnalystProcess
from tests.support.prometheus import RULES, Prometheus, prometheus, scaled
from tests.support.simulated import repeated
from tests.support.workers import WorkerProcess, environment, producer, wait_for

ALERT = (
    b'{"alert":"x-1","user":"x","kind":"emerging","as_of":"2026-03-01T18:00:00Z","velocity":2.5,"level":1,"reach":7.3,'
    b'"percentile":96.4,"new_sharers":5,"content":"c","model":"0"}'
)
START_S = 300.0


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
        factor: by which the durations of the rules are divided.
    """

    def __init__(self, folder: Path, stack: ExitStack, kafka: EmbeddedKafka, shards: int, factor: int) -> None:
        self.folder, self.address = folder, Address()
        ports = free_ports(shards + 1)
        self.settings = Settings.load(
            broker=kafka.address, prefix=f"b{ports[0]}.", shards=shards, partitions=2, analyst_port=ports[-1],
            checkpoints=f"file://{folder}/checkpoints", checkpoint_every_s=2, erase_within_s=600, audit_share=0.2,
            datadir=folder / "w0", web_port=ports[0], live_posts=150, watermark_idle_s=3, memory_mb=64, alert_floor=4,
            alert_webhook=SecretStr(f"http://127.0.0.1:{self.address.server_port}/"), train_posts=60, train_events=3000,
            session_timeout_s=45 if shards > 1 else 6, log_format="json",
        )  # fmt: skip
        self.topics = Topics(self.settings)
        with admin(self.settings) as client:
            create(client, self.topics.all())
        self.workers: list[WorkerProcess] = []
        for number in range(shards):
            own = {"datadir": folder / f"w{number}", "web_port": ports[number], "instance": f"w{number}"}
            self.workers.append(SpoiledWorker(self.settings.model_copy(update=own)))
        self.analyst = AnalystProcess(self.settings.model_copy(update={"web_port": ports[-1]}))
        self.analyst.log = folder / "analyst.log"
        for process in [*self.workers, self.analyst]:
            stack.callback(lambda process=process: process.process and process.kill())  # type: ignore[misc]
            process.start()
        for process in self.workers:
            wait_for(lambda process=process: process.get("/readyz")[0] == 200, START_S, "a worker")  # type: ignore[misc]
        jobs = {"groundswell": ports[:-1], "groundswell-analyst": ports[-1:]}
        (folder / "prometheus").mkdir()
        rules = scaled(yaml.safe_load(RULES.read_text(encoding="utf-8")), factor)
        self.server: Prometheus = stack.enter_context(prometheus(folder / "prometheus", jobs, rules))
        wait_for(self.server.healthy, 120, "the targets")
        self.stream = Stream(self.settings)
        self.stream.start()
        stack.callback(self.stream.stop)
        self.trained_at: float | None = None

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
        wait_for(lambda: process.get("/readyz")[0] == 200, START_S, "a restart")

    def train(self) -> None:
        """Run a trainer for one cycle; `trainer.log` has what it decided."""
        command = [sys.executable, "-m", "streams.cli", "trainer", "--once", "--json"]
        own, root = environment(self.settings), tidy.ROOT
        done = subprocess.run(command, env=own, cwd=root, capture_output=True, text=True, timeout=START_S, check=False)
        assert done.returncode == 0, done.stderr
        (self.folder / "trainer.log").write_text(done.stdout + done.stderr, encoding="utf-8")
        # The id of a decision is its time in milliseconds.
        self.trained_at = time.monotonic() - time.time() + int(json.loads(done.stdout.splitlines()[-1])["id"]) / 1e3


NUMBERS = itertools.count()


def share(time_s: float, content: str) -> bytes:
    """A share of another user each time, as a message; it names the author and the time of the content."""
    event = {"type": "share", "time": time_s, "user": f"late{next(NUMBERS)}", "content": content, "author": "a1"}
    return json.dumps(event | {"created": time_s - HOUR_S}).encode()


# Producers and their events


@contextmanager
def bad_producer(bench: Bench) -> Iterator[None]:
    """A producer sends messages that are no JSON."""
    with repeated(lambda: bench.send("share", *[b"{"] * 20), 0.3):
        yield


@contextmanager
def old_events(bench: Bench) -> Iterator[None]:
    """A producer sends events that are 60 days old."""
    with repeated(lambda: bench.send("share", share(bench.stream.now_s - 60 * 24 * HOUR_S, "expired")), 0.5):
        yield


@contextmanager
def disordered_producer(bench: Bench) -> Iterator[None]:
    """A producer sends shares that are eight hours older than those before them in their partition."""
    with repeated(lambda: bench.send("share", share(bench.stream.now_s - 8 * HOUR_S, "disordered")), 0.3):
        yield


@contextmanager
def old_partition(bench: Bench) -> Iterator[None]:
    """One partition gets events that are eight hours behind the others."""
    with repeated(lambda: bench.send("share", share(bench.stream.now_s - 8 * HOUR_S, "behind"), partition=1), 0.3):
        yield


@contextmanager
def other_authors(bench: Bench) -> Iterator[None]:
    """Popular authors lose their readers, and others gain them."""
    # Predictions are judged three days later, so events of several days come at once, as after a pause.
    bench.stream.reversed_ = True
    bench.stream.skip(9)
    yield
    bench.stream.reversed_ = False
    bench.stream.skip(10)


@contextmanager
def bought_shares(bench: Bench) -> Iterator[None]:
    """Several authors rise every two days, and stop after nine hours, as bought shares do."""
    bench.stream.bought = True
    bench.stream.skip(30)  # outcomes come three days after an alert
    yield
    bench.stream.bought = False
    bench.stream.skip(20)


# Processes


@contextmanager
def killed_worker(bench: Bench) -> Iterator[None]:
    """The only worker is killed."""
    bench.worker.kill()
    yield
    bench.restart(bench.worker)


@contextmanager
def killed_analyst(bench: Bench) -> Iterator[None]:
    """The analyst is killed."""
    bench.analyst.kill()
    yield
    bench.restart(bench.analyst)


@contextmanager
def slow_rebuild(bench: Bench) -> Iterator[None]:
    """The analyst starts again, and its process runs a fifth of the time while it rebuilds its graph."""
    bench.analyst.kill()
    bench.analyst.start()
    with repeated(lambda: halt(bench.analyst, 0.8), 0.2):
        yield
    wait_for(lambda: bench.analyst.get("/readyz")[0] == 200, START_S, "the rebuild")


@contextmanager
def halted_worker(bench: Bench) -> Iterator[None]:
    """The worker of one of two shards is halted, and the group waits for it."""
    process = bench.workers[1].process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    yield
    process.send_signal(signal.SIGCONT)


def halt(process: WorkerProcess, seconds: float) -> None:
    """Halt a process for some seconds."""
    assert process.process is not None
    process.process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.process.send_signal(signal.SIGCONT)


@contextmanager
def slow_processor(bench: Bench) -> Iterator[None]:
    """The worker's process runs a fifth of the time, under load."""
    events = [
        {"type": "follow", "time": bench.stream.now_s, "user": f"m{n}", "target": f"a{n % 40}"} for n in range(16_000)
    ]
    follows = itertools.cycle(json.dumps(events[at : at + 4]).encode() for at in range(0, len(events), 4))
    bench.stream.load = 1_500
    with producer(bench.settings) as sender:

        def single() -> None:
            for follow in itertools.islice(follows, 400):
                sender.send(bench.topics.follow.name, follow, partition=1)

        # Short halts: an answer to Prometheus must be possible within its second.
        with repeated(lambda: halt(bench.worker, 0.12), 0.03), repeated(single, 0.1):
            yield
    bench.stream.load = 0


@contextmanager
def bad_memory(bench: Bench) -> Iterator[None]:
    """Values in the worker's memory change by themselves."""
    assert bench.worker.process is not None
    bench.worker.process.send_signal(signal.SIGUSR1)
    yield


# Files, topics and addresses


@contextmanager
def deleted_topic(bench: Bench) -> Iterator[None]:
    """An input topic is deleted."""
    with admin(bench.settings) as client:
        client.delete_topics([bench.topics.follow.name])
    yield
    with admin(bench.settings) as client:
        create(client, bench.topics.all())


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
def refused_webhook(bench: Bench) -> Iterator[None]:
    """The address of the webhook answers 503."""
    bench.address.refuses = True
    with producer(bench.settings) as sender:
        sender.send(bench.topics.alert.name, ALERT, key=b"x")
    yield
    bench.address.refuses = False


# The trainer


@contextmanager
def few_authors(bench: Bench) -> Iterator[float | None]:
    """Only five authors post, so that no snapshot has the ten that a training needs; the trainer runs once."""
    bench.stream.authors = 5
    bench.stream.skip(15)
    bench.train()
    bench.stream.authors = None
    yield bench.trained_at


@contextmanager
def silent_trainer(bench: Bench) -> Iterator[float | None]:
    """No trainer has run since the one above."""
    if bench.trained_at is None:
        bench.train()
    yield bench.trained_at
    bench.train()


Fault = Callable[[Bench], Any]
ONE_SHARD: list[tuple[Fault, tuple[str, ...]]] = [
    (bought_shares, ("GroundswellAlertPrecision",)),
    (other_authors, ("GroundswellRankCorrelation",)),
    (few_authors, ("GroundswellTrainerFails",)),
    (bad_producer, ("GroundswellDeadLetters", "GroundswellDeadLetterRate")),
    (old_events, ("GroundswellExpired",)),
    (disordered_producer, ("GroundswellLateShares",)),
    (old_partition, ("GroundswellWatermarkStuck",)),
    (refused_webhook, ("GroundswellWebhook",)),
    (bad_memory, ("GroundswellAudit",)),
    (lost_checkpoint_folder, ("GroundswellCheckpoints", "GroundswellCheckpointAge")),
    (killed_analyst, ("GroundswellAnalystDown",)),
    (slow_rebuild, ("GroundswellAnalystBehind",)),
    (silent_trainer, ("GroundswellTrainerSilent",)),
    (slow_processor, ("GroundswellBudgetBurnsFast", "GroundswellBudgetBurnsSlowly", "GroundswellLagGrows")),
    (late_erasure, ("GroundswellForget",)),
    (deleted_topic, ("GroundswellNotReady",)),
    (killed_worker, ("GroundswellDown", "GroundswellShardMissing")),
]
TWO_SHARDS: list[tuple[Fault, tuple[str, ...]]] = [(halted_worker, ("GroundswellAlertsAwaitShard",))]
NOT_FIRED = {
    "GroundswellWritesStalled": "needs a disk that is slower than the input: to slow it down here would hold up the "
    "whole machine, and a worker whose thread of compaction is halted waits for it",
}
"""Alerts that no fault fires here, with the reason; promtool's tests do (rules.test.yml)."""
