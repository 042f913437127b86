"""What a worker needs from its surroundings, as checks that say what to mend."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from streams.errors import SettingsError, StateError, on_purpose, one_line
from streams.kafka import topics
from streams.kafka.access import rights_table
from streams.kafka.access.advertised_listeners import Unreachable, unreachable
from streams.settings import kernel_cache
from streams.settings.settings import Settings
from streams.settings.sources import DEFAULT, Examined
from streams.worker.data_dir import shard_folders
from streams.worker.log_mark import other_log, recorded_log_id
from streams.worker.run import check_artifact, check_port

FREE_MB = 1_000
BROKER_S = 5.0


class Finding(NamedTuple):
    """What one check found."""

    name: str
    ok: bool
    detail: str


class Check(NamedTuple):
    """A name and a function that returns what is well, or raises an error that says what to mend."""

    name: str
    look: Callable[[Settings], str]


def examine(check: Check, settings: Settings) -> Finding:
    """Run one check; any error is a finding, because a doctor must get to the end."""
    try:
        return Finding(check.name, ok=True, detail=check.look(settings))
    except Exception as error:  # noqa: BLE001 - see above
        kind = "" if on_purpose(error) else f"{type(error).__name__}: "
        return Finding(check.name, ok=False, detail=kind + one_line(error))


def settings(examined: Examined[Settings]) -> Iterator[Finding]:
    """A finding for each problem of the settings; the other checks then use what is right, and defaults."""
    for problem in examined.problems:
        yield Finding("settings", ok=False, detail=problem)
    for note in examined.notes:
        yield Finding("settings", ok=True, detail=note)
    if not examined.problems:
        given = sum(origin != DEFAULT for origin in examined.origins.values())
        yield Finding("settings", ok=True, detail=f"{given} of {len(examined.origins)} are set, the rest are defaults")


def broker(settings: Settings) -> str:
    """Kafka answers."""
    with topics.admin(settings, BROKER_S) as client:
        brokers = client.describe_cluster()["brokers"]
    lost = asyncio.run(unreachable({(one["host"], one["port"]) for one in brokers}))
    if lost:
        raise Unreachable(settings.broker, lost)
    return f"{settings.broker} answers, {len(brokers)} broker(s)"


def registry(settings: Settings) -> str:
    """Every topic exists with the right number of partitions."""
    specs = topics.Topics(settings).all()
    with topics.admin(settings, BROKER_S) as client:
        topics.check(client, specs)
    return f"all {len(specs)} topics are there"


def codecs(_: Settings) -> str:
    """Messages of every compression codec of Kafka's can be read."""
    from streams.kafka.consumer.fetch_errors import CODECS, missing_codecs

    missing = missing_codecs()
    if missing:
        raise SettingsError("; ".join(missing))
    return f"{', '.join(CODECS)} can be read"


def rights(settings: Settings) -> str:
    """The user has every right of a worker."""
    return rights_table.examine(settings, BROKER_S)


def state(settings: Settings) -> str:
    """The states in the data folder are of the log that Kafka has."""
    name = topics.Topics(settings).mutations.name
    found = {folder: recorded_log_id(folder) for folder in shard_folders(settings.datadir).values()}
    if not found:
        return f"none in {settings.datadir} yet"
    with topics.admin(settings, BROKER_S) as client:
        there = topics.ids(client, [name]) if name in client.list_topics() else {}
    log_id = there.get(name, "")
    for folder, its_id in found.items():
        if its_id and its_id != log_id and (log_id or name not in there):
            raise other_log(str(folder), name, its_id, log_id or "none: it is missing")
    return f"{len(found)} shard(s) in {settings.datadir}, of {name} as it is"


def disk(settings: Settings) -> str:
    """The state's folder can be written and has room."""
    folder = _existing(settings.datadir.absolute())
    if not os.access(folder, os.W_OK | os.X_OK):
        message = f"{folder} cannot be written; mend its rights or set GROUNDSWELL_DATADIR"
        raise StateError(message)
    free_mb = shutil.disk_usage(folder).free // 1_000_000
    if free_mb < FREE_MB:
        message = f"{folder} has {free_mb} MB left, at least {FREE_MB} are needed; make room or set GROUNDSWELL_DATADIR"
        raise StateError(message)
    return f"{settings.datadir} can be written, {free_mb:,} MB free"


def _existing(path: Path) -> Path:
    """The path itself or the nearest folder above it that exists."""
    return path if path.exists() else _existing(path.parent)


def kernels(settings: Settings) -> str:
    """There is a folder for the compiled kernels."""
    if os.path.isdir(settings.datadir):  # noqa: PTH112 - it answers also where permissions are missing
        return kernel_cache.prepare(settings.datadir)
    found = kernel_cache.prepare()
    # Nothing is made here; a worker makes its folder and uses that.
    return found if kernel_cache.sources_writable() else f"{found}; a worker's in {settings.datadir}/kernels"


def device(settings: Settings) -> str:
    """The wanted device is there; `auto` says what it chose, and why."""
    from model.config import ModelConfig
    from model.engine.device_selection import choose

    choice = choose(settings.device, ModelConfig())
    return f"{settings.device}: {choice.device}, {choice.why}; this process may use {_cores()} core(s)"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


CHECKS = (
    Check("broker", broker),
    Check("topics", registry),
    Check("codecs", codecs),
    Check("rights", rights),
    Check("state", state),
    Check("disk", disk),
    Check("kernels", kernels),
    Check("device", device),
    Check("model", check_artifact),
    Check("web", check_port),
)
