"""Run a worker of an image in a folder with the limits of the image and of the systemd unit: `make sandbox`.

python -m tests.deploy.sandbox [--root DIR]   DIR: what tests/deploy/image_root.py made (`make image-root`)

In a mount namespace everything is read-only but the data folder; the user is a number without a name, has no home, no
capability, and cannot gain one; the environment has only the settings. The worker must get ready, score an event, log
no error, and end with 0. As systemd's user it has a random number, and all its system calls are compared with
@system-service (strace). Needs root and a kernel with namespaces.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics
from streams.settings.settings import PREFIX, Settings
from tests.chaos.network import free_ports
from tests.support import tidy
from tests.support.workers import WorkerProcess, producer, read_all, wait_for

START_S = 500.0
"""Maximum duration of a start without compiled kernels on a busy machine."""
IMAGE_UID = 10_001
SHELL = """
set -eu
root=$1 data=$2 uid=$3 trace=$4; shift 4
mount --bind "$root" "$root"
mount --bind "$data" "$root/data"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777,size=64m tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"
exec $trace chroot "$root" setpriv --reuid "$uid" --regid "$uid" --clear-groups --no-new-privs --bounding-set=-all \\
  --inh-caps=-all env -i "$@"
"""
OUTSIDE = {"chroot", "setgroups", "setresuid", "setresgid", "capset", "prctl"}
"""Calls of the programs that set up the sandbox."""


class Sandboxed(WorkerProcess):
    """A worker in its own mount namespace.

    Args:
        settings: its settings; the data folder is that outside.
        root: the folder of the image.
        uid: the number of its user and group.
        variables: further variables.
        strace: a file for the summary of system calls.
    """

    def __init__(self, settings: Settings, root: Path, uid: int, variables: Mapping[str, str]) -> None:
        super().__init__(settings)
        self.root, self.uid, self.variables = root, uid, dict(variables)
        self.strace: Path | None = None

    def start(self) -> None:
        """Start it; the last program that is executed is the worker, so that signals reach it."""
        here = self.settings
        os.chown(here.datadir, self.uid, self.uid)
        here.datadir.chmod(0o700)
        values = {"broker": here.broker, "prefix": here.prefix, "web_port": here.web_port, "web_host": "127.0.0.1"}
        values |= {"datadir": "/data", "log_format": "json"}
        environment = {PREFIX + name.upper(): str(value) for name, value in values.items()} | self.variables
        environment |= {"PATH": "/app/bin:/usr/bin:/bin"}
        trace = f"strace -D -f -c -o {self.strace}" if self.strace else ""
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", SHELL, "sh"]
        command += [str(self.root), str(here.datadir), str(self.uid), trace]
        command += [*(f"{name}={value}" for name, value in environment.items()), "/app/bin/groundswell", "worker"]
        shell = {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=shell, stdout=log, stderr=log, cwd="/")

    def status(self) -> dict[str, str]:
        """The status of the process in the kernel."""
        assert self.process is not None
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def try_out(process: Sandboxed) -> dict[str, object]:
    """Start a worker, let it score an event, stop it; return what was observed."""
    settings, topics = process.settings, Topics(process.settings)
    begin = time.monotonic()
    process.start()
    process.wait_ready(START_S)
    ready_s = time.monotonic() - begin
    status, user = process.status(), f"u{int(begin)}"
    with producer(settings) as sender:
        event = {"type": "share", "time": 1_700_000_000, "user": user, "content": "c"}
        sender.send(topics.share.name, json.dumps(event).encode())
    wait_for(lambda: user.encode() in {one.key for one in read_all(settings, [topics.score.name])}, 60, "the score")
    metrics = process.get("/metrics")[1].decode()
    stopped = process.stop()
    errors = [
        line for line in process.log.read_text().splitlines() if '"level": "error"' in line or "Traceback" in line
    ]
    return {
        "ready_s": round(ready_s, 1),
        "scored": float(re.findall(r"^groundswell_scores_total (\S+)", metrics, re.MULTILINE)[0]) > 0,
        "exit": stopped,
        "errors": errors,
        "uid": status["Uid"].split()[0],
        "capabilities": status["CapEff"],
        "no_new_privileges": status["NoNewPrivs"],
    }


def foreign_calls(summary: str) -> set[str]:
    """System calls of a summary of strace that systemd's @system-service does not allow."""
    called = set(re.findall(r"(\w+)$", summary, re.MULTILINE)) - {"syscall", "total"}
    called = {name for name in called if not set(name) <= {"-"} and not name.isdigit()}
    text = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True
    ).stdout
    sets = {part.split()[0]: part.split()[1:] for part in re.split(r"\n(?=@)", text) if part.startswith("@")}

    def members(name: str) -> set[str]:
        words = [word for word in sets.get(name, []) if re.fullmatch(r"@?[\w-]+", word)]
        return {one for word in words for one in (members(word) if word[0] == "@" else {word})}

    return called - members("@system-service")


def main(root: Path | None = None) -> int:
    """Run a worker with the kernels of the image, without, and as the systemd unit; returns the exit code."""
    if root is None:
        parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
        parser.add_argument("--root", type=Path, default=tidy.ROOT / "build" / "image-root" / "run")
        root = parser.parse_args().root.absolute()
    if not (root / "app" / "bin" / "groundswell").exists():
        raise SystemExit(f"sandbox: {root} has no image: make image-root makes one")
    kernels = {"NUMBA_CACHE_DIR": "/app/kernels"}
    runs = [
        ("kernels of the image", IMAGE_UID, kernels),
        ("as the systemd unit", random.randrange(61_184, 65_519), kernels),  # the range of DynamicUser
        ("without kernels", IMAGE_UID, {}),
    ]
    fine = True
    with tempfile.TemporaryDirectory() as name, EmbeddedKafka(Path(name) / "kafka") as kafka:
        Path(name).chmod(0o755)
        for run, uid, variables in runs:
            port, folder = free_ports(1)[0], Path(name) / run.replace(" ", "-")
            folder.mkdir()
            settings = Settings.load(broker=kafka.address, prefix=f"s{port}.", datadir=folder, web_port=port)
            process = Sandboxed(settings, root, uid, variables)
            if run == "as the systemd unit" and shutil.which("strace"):
                process.strace = Path(name) / "strace"
            try:
                found = try_out(process)
            except BaseException:
                sys.stderr.write(process.log.read_text()[-3_000:])
                raise
            finally:
                if process.process is not None:
                    process.kill()
            fine &= bool(found["scored"]) and found["exit"] == 0 and not found["errors"]
            sys.stdout.write(f"{run}: {json.dumps(found)}\n")
            if process.strace is not None:
                time.sleep(1)  # strace writes when all traced processes have ended
                beyond = sorted(foreign_calls(process.strace.read_text()) - OUTSIDE)
                sys.stdout.write(f"calls beyond @system-service: {', '.join(beyond) or 'none'}\n")
            sys.stdout.flush()
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
