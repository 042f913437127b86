"""Checks of everything that a worker needs from its environment; a failed check names its remedy."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import Request

from kafka import TopicPartition

from streams.analyst.run import check_port as check_analyst_port
from streams.errors import SettingsError, StateError, on_purpose, one_line
from streams.kafka import topics
from streams.kafka.access import rights_table
from streams.kafka.access.advertised_listeners import Unreachable, unreachable
from streams.settings import kernel_cache
from streams.settings.direct_http import urlopen
from streams.settings.settings import Settings
from streams.settings.sources import DEFAULT, Examined
from streams.worker.checkpoints import saved_offsets
from streams.worker.data_dir import shard_folders
from streams.worker.log_mark import check_log, other_log, recorded_log_id
from streams.worker.run import check_artifact, check_port

FREE_MB = 1_000
"""Minimum free space on the disk of the states (MB)."""
BROKER_TIMEOUT_S = 5.0


class CheckResult(NamedTuple):
    """Result of one check.

    Attributes:
        name: Name of the check.
        ok: Whether it passed.
        detail: What was checked, or what is wrong and what to do about it.
    """

    name: str
    ok: bool
    detail: str


class Check(NamedTuple):
    """A check.

    Attributes:
        name: Name of the check.
        run: Returns what was checked, or raises an error with what is wrong and what to do about it.
    """

    name: str
    run: Callable[[Settings], str]


def examine(check: Check, settings: Settings) -> CheckResult:
    """Run one check; an unexpected error fails this check only, so that the remaining checks run."""
    try:
        return CheckResult(check.name, ok=True, detail=check.run(settings))
    except Exception as error:  # noqa: BLE001 - see above
        kind = "" if on_purpose(error) else f"{type(error).__name__}: "
        return CheckResult(check.name, ok=False, detail=kind + one_line(error))


def settings(examined: Examined[Settings]) -> Iterator[CheckResult]:
    """Yield a result for each problem of the settings; the other checks use defaults in place of invalid settings."""
    for problem in examined.problems:
        yield CheckResult("settings", ok=False, detail=problem)
    for note in examined.notes:
        yield CheckResult("settings", ok=True, detail=note)
    if not examined.problems:
        given = sum(origin != DEFAULT for origin in examined.origins.values())
        yield CheckResult(
            "settings", ok=True, detail=f"{given} of {len(examined.origins)} are set, the rest are defaults"
        )


def broker(settings: Settings) -> str:
    """Check that Kafka answers, at the configured address and at those that it advertises."""
    with topics.admin(settings, BROKER_TIMEOUT_S) as client:
        brokers = client.describe_cluster()["brokers"]
    missed = asyncio.run(unreachable({(advertised["host"], advertised["port"]) for advertised in brokers}))
    if missed:
        raise Unreachable(settings.broker, missed)
    return f"{settings.broker} answers, {len(brokers)} broker(s)"


def registry(settings: Settings) -> str:
    """Check that every topic exists with the right number of partitions."""
    specs = topics.Topics(settings).all()
    with topics.admin(settings, BROKER_TIMEOUT_S) as client:
        topics.check(client, specs)
    return f"all {len(specs)} topics exist"


def codecs(_: Settings) -> str:
    """Check that messages of each of Kafka's compression codecs can be read."""
    from streams.kafka.consumer.fetch_errors import CODECS, missing_codecs

    missing = missing_codecs()
    if missing:
        raise SettingsError("; ".join(missing))
    return f"{', '.join(CODECS)} can be read"


def rights(settings: Settings) -> str:
    """Check that the user has every right that a worker needs."""
    return rights_table.examine(settings, BROKER_TIMEOUT_S)


def state(settings: Settings) -> str:
    """Check that the states in the data folder belong to the log that Kafka has, and that it has their next records."""
    name = topics.Topics(settings).mutations.name
    ids_by_folder = {folder: recorded_log_id(folder) for folder in shard_folders(settings.datadir).values()}
    if not ids_by_folder:
        return f"none in {settings.datadir} yet"
    with topics.admin(settings, BROKER_TIMEOUT_S) as client:
        existing = topics.ids(client, [name]) if name in client.list_topics() else {}
        count = topics.partitions(client, list(existing)).get(name, 0)
        offsets = topics.ranges(client, [TopicPartition(name, partition) for partition in range(count)])
    log_id = existing.get(name, "")
    for folder, state_log_id in ids_by_folder.items():
        # Without topic ids (a Kafka before 2.8) the log that exists cannot be compared.
        if state_log_id and state_log_id != log_id and (log_id or name not in existing):
            raise other_log(str(folder), name, state_log_id, log_id or "none: it is missing")
    for shard, next_offset in saved_offsets(settings.datadir).items():
        if (key := TopicPartition(name, shard)) in offsets:
            check_log(name, shard, next_offset, *offsets[key])
    return f"{len(ids_by_folder)} shard(s) in {settings.datadir}, all of the present {name}"


def disk(settings: Settings) -> str:
    """Check that the data folder is writable and has free space."""
    folder = _existing(settings.datadir.absolute())
    if not os.access(folder, os.W_OK | os.X_OK):
        message = f"{folder} cannot be written; correct its permissions or set GROUNDSWELL_DATADIR"
        raise StateError(message)
    free_mb = shutil.disk_usage(folder).free // 1_000_000
    if free_mb < FREE_MB:
        message = (
            f"{folder} has {free_mb} MB left, at least {FREE_MB} are needed; free space or set GROUNDSWELL_DATADIR"
        )
        raise StateError(message)
    return f"{settings.datadir} is writable, {free_mb:,} MB free"


def _existing(path: Path) -> Path:
    """Return the path itself or the nearest folder above it that exists."""
    return path if path.exists() else _existing(path.parent)


def kernels(settings: Settings) -> str:
    """Check that compiled kernels can be stored."""
    if os.path.isdir(settings.datadir):  # noqa: PTH112 - no error where permissions are missing
        return kernel_cache.prepare(settings.datadir)
    detail = kernel_cache.prepare()
    # A check creates no folder; a worker creates its data folder and uses that.
    return detail if kernel_cache.sources_writable() else f"{detail}; a worker's in {settings.datadir}/kernels"


def device(settings: Settings) -> str:
    """Check that the configured device is available; the detail names the device that `auto` selects, and why."""
    from model.config import ModelConfig
    from model.engine.device_selection import choose

    choice = choose(settings.device, ModelConfig())
    return f"{settings.device}: {choice.device}, {choice.why}; this process may use {_cores()} core(s)"


def analyst(settings: Settings) -> str:
    """Check what an analyst on this machine needs; none has to run, so a missing library is no error."""
    if find_spec("igraph") is None:
        return "cannot run here: `pip install 'groundswell[analyst]'` brings what it needs"
    try:
        check_analyst_port(settings)
    except SettingsError:
        detail = _analyst_detail(settings)
        if detail is None:
            raise
        return f"runs on port {settings.analyst_port}: {detail}"
    return f"port {settings.analyst_port} is free; its graph may take {settings.analyst_memory_mb:,} MB"


def _analyst_detail(settings: Settings) -> str | None:
    """Return what the process on the analyst's port does, None if it is no analyst."""
    address = f"http://{settings.web_host}:{settings.analyst_port}/readyz"
    request = Request(address, headers=settings.web_headers())
    try:
        with urlopen(request, BROKER_TIMEOUT_S) as response:
            body = response.read()
    except HTTPError as error:
        # An analyst that is not ready answers 503 with the same fields.
        body = error.read()
    except OSError:
        return None
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    detail = answer.get("detail") if isinstance(answer, dict) else None
    return detail if isinstance(detail, str) else None


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
    Check("analyst", analyst),
)
