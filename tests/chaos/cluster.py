"""Broker, network and workers of a chaos run, and the code that injects the faults."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from streams.kafka.topics import Topics, admin, create
from streams.settings.settings import Settings
from tests.chaos.member import Member
from tests.chaos.network import LinkedKafka, Network, free_ports
from tests.chaos.schedule import (
    CLOCK,
    CRASH,
    CUT,
    DISK,
    HANG,
    JOIN,
    KILL,
    OF_OWNERS,
    REFUSE,
    RESTART,
    SILENT,
    SLOW,
    TERM,
    Fault,
)
from tests.support.workers import wait_for

FLICKER_S = 0.25
DISK_BYTES = 160 << 20
"""Size of the small disk of a worker that runs out of space."""
JUMPS_S = (-86_400, 1_800, -3_600, 0)
"""Successive offsets of one worker's wall clock; a broker refuses timestamps more than an hour ahead."""
READY_S = 120.0


@dataclass
class Happened:
    """What the faults did. kills: (Unix ms, shards that the killed worker owned)."""

    lines: list[str] = field(default_factory=list)
    kills: list[tuple[int, list[int]]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def can_mount() -> bool:
    """Whether this user can mount a small file system, which a full disk needs."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


SPREAD_ROWS = 64
"""Small, so that many nodes are hubs."""


class Cluster:
    """Broker, links and workers of one run, in one folder; a context manager."""

    def __init__(self, folder: Path, *, workers: int, shards: int, faults: list[Fault], static: bool) -> None:
        self.folder = folder
        self.faults = faults
        self.happened = Happened()
        joins = sum(fault.kind == JOIN for fault in faults)
        self._count = workers
        self.network = Network(workers + (1 if joins else 0))
        self.kafka = LinkedKafka(folder / "kafka")
        self.kafka.network = self.network
        self._shards, self._static = shards, static
        self._broker = threading.Lock()
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._mounted: list[Path] = []
        self._begin = 0.0
        self.members: list[Member] = []

    def __enter__(self) -> Self:
        try:
            self.kafka.start()
            self._members()
            with admin(self.settings, 20.0) as client:
                create(client, Topics(self.settings).all())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.abandon()
        self.kafka.stop()
        self.network.close()
        for path in self._mounted:
            subprocess.run(["umount", "--lazy", str(path)], check=False)

    @property
    def settings(self) -> Settings:
        """Settings of the observer: direct connection to the broker, no worker's folder or port."""
        return self._settings(self.kafka.address, "onlooker", 0)

    def _settings(self, broker: str, name: str, port: int) -> Settings:
        return Settings.load(
            calibrate=False,
            broker=broker,
            shards=self._shards,
            datadir=self.folder / name,
            web_port=port,
            retention_s=0,
            spread_rows=SPREAD_ROWS,
            instance=name if self._static else "",
            log_format="json",
        )

    def _members(self) -> None:
        for number, port in enumerate(free_ports(len(self.network.links))):
            settings = self._settings(self.kafka.address_of(number), f"w{number}", port)
            kinds = {fault.kind for fault in self.faults}
            skewed = any(fault.kind == CLOCK and fault.worker == number for fault in self.faults)
            if DISK in kinds and can_mount():
                settings.datadir.mkdir(parents=True)
                size = f"size={DISK_BYTES}"
                subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(settings.datadir)], check=True)
                self._mounted.append(settings.datadir)
            self.members.append(Member(number, settings, skewed=skewed))

    def begin(self) -> None:
        """Start the initial workers and wait until they are ready."""
        for member in self.members[: self._count]:
            member.begin()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until every worker that should run reports that it is ready."""
        for member in self.members:
            if member.up:
                wait_for(member.ready, READY_S, f"worker {member.number} to be ready")

    # Faults

    def start_faults(self) -> None:
        """Start the faults, each on its own thread, timed from now."""
        self._begin = time.monotonic()
        self._threads = [threading.Thread(target=self._one, args=(fault,), daemon=True) for fault in self.faults]
        for thread in self._threads:
            thread.start()

    def wait_faults(self) -> None:
        """Wait until all faults have ended and all workers run again; raise the errors of the faults."""
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        self.network.heal()
        for member in self.members[: self._count]:
            member.send(signal.SIGCONT)
            member.again()
        self.wait_ready()

    def finish(self) -> None:
        """Stop all workers with SIGTERM, at the same time."""
        for member in self.members:
            member.leave()
        for member in self.members:
            member.down(signal.SIGTERM, "the end")
        for member in self.members:
            member.finish()

    def _one(self, fault: Fault) -> None:
        try:
            time.sleep(max(0.0, self._begin + fault.at_s - time.monotonic()))
            self._note(f"begins: {fault}")
            self._acts[fault.kind](self, fault)
            self._note(f"ended: {fault}")
        except BaseException as error:  # noqa: BLE001 - raised by wait_faults
            self._errors.append(error)

    def _note(self, what: str) -> None:
        line = f"{time.monotonic() - self._begin:6.1f} s {what}"
        self.happened.lines.append(line)
        with (self.folder / "faults.log").open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%H:%M:%S', time.gmtime())} {line}\n")

    def _skip(self, fault: Fault, why: str) -> None:
        self._note(f"skipped, {why}: {fault}")
        self.happened.skipped.append(f"{fault.kind}: {why}")

    def _target(self, fault: Fault) -> Member:
        """The worker that a fault hits; faults for owners prefer a worker that owns shards."""
        owners = [member for member in self.members if member.alive and member.shards]
        if fault.kind not in OF_OWNERS or not owners:
            return self.members[fault.worker]
        member = owners[fault.worker % len(owners)]
        self._note(f"hits worker {member.number}: {fault}")
        return member

    def _kill(self, fault: Fault) -> None:
        member = self._target(fault)
        shards = member.shards
        if not member.down(signal.SIGKILL, fault.kind):
            self._skip(fault, "the worker was down")
        else:
            self.happened.kills.append((time.time_ns() // 1_000_000, shards))
        time.sleep(fault.lasts_s)
        member.again()

    def _term(self, fault: Fault) -> None:
        member = self.members[fault.worker]
        if not member.down(signal.SIGTERM, fault.kind):
            self._skip(fault, "the worker was down")
        time.sleep(fault.lasts_s)
        member.again()

    def _hang(self, fault: Fault) -> None:
        member = self._target(fault)
        if not member.send(signal.SIGSTOP):
            self._skip(fault, "the worker was down")
        time.sleep(fault.lasts_s)
        member.send(signal.SIGCONT)

    def _slow(self, fault: Fault) -> None:
        member, end = self.members[fault.worker], time.monotonic() + fault.lasts_s
        while time.monotonic() < end:
            member.send(signal.SIGSTOP)
            time.sleep(FLICKER_S)
            member.send(signal.SIGCONT)
            time.sleep(FLICKER_S)

    def _join(self, fault: Fault) -> None:
        member = self.members[fault.worker]
        member.begin()
        time.sleep(fault.lasts_s)
        member.down(signal.SIGTERM, fault.kind)

    def _restart(self, fault: Fault) -> None:
        with self._broker:
            self.kafka.halt(kill=fault.kind == CRASH)
            time.sleep(fault.lasts_s)
            self.kafka.resume()

    def _network(self, fault: Fault) -> None:
        link = self._target(fault).number if fault.kind == CUT else -1
        (self.network.refuse if fault.kind == REFUSE else self.network.silence)(link)
        time.sleep(fault.lasts_s)
        self.network.heal(link)

    def _disk(self, fault: Fault) -> None:
        member = self._target(fault)
        if member.settings.datadir not in self._mounted:
            self._skip(fault, "no permission to mount a small disk")
            return
        ballast = member.settings.datadir / "ballast"
        end = time.monotonic() + fault.lasts_s
        while time.monotonic() < end:
            fill(ballast)
            time.sleep(FLICKER_S)
        ballast.unlink()

    def _clock(self, fault: Fault) -> None:
        member = self.members[fault.worker]
        for jump_s in JUMPS_S:
            member.clock.write_text(str(jump_s), encoding="ascii")
            time.sleep(fault.lasts_s / len(JUMPS_S))

    _acts: dict[str, Callable[[Cluster, Fault], None]] = {  # noqa: RUF012 - a table of methods
        KILL: _kill,
        TERM: _term,
        HANG: _hang,
        SLOW: _slow,
        JOIN: _join,
        RESTART: _restart,
        CRASH: _restart,
        REFUSE: _network,
        SILENT: _network,
        CUT: _network,
        DISK: _disk,
        CLOCK: _clock,
    }


def fill(path: Path) -> None:
    """Fill the free space of a file system."""
    with suppress(OSError), path.open("ab", buffering=0) as file:
        for size in (1 << 20, 4_096, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
