"""Run a worker in this process: local checks, topics, then the worker until a signal or an error stops it."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from streams.errors import SettingsError

if TYPE_CHECKING:
    from streams.errors import BrokerError
    from streams.settings.settings import Settings
    from streams.worker.worker import Worker

log = logging.getLogger(__name__)

AGAIN_S = 1.0


def run(settings: Settings, extend: Callable[[Worker], None] | None = None) -> None:
    """Run a worker in this process until SIGTERM or SIGINT.

    Args:
        settings: Settings of the worker.
        extend: Adds something to the worker before it starts.

    Raises:
        GroundswellError: What stopped it instead.
    """
    run_until_signal(partial(serve, settings, extend=extend))


def run_until_signal(serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine on an event loop of its own; SIGTERM and SIGINT set the event that it gets."""
    import uvloop

    async def until_signal() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serve(stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_signal())


async def serve(settings: Settings, stop: asyncio.Event, extend: Callable[[Worker], None] | None = None) -> None:
    """Run a worker on the running loop until `stop` is set; `extend` adds something to it before it starts.

    Raises:
        GroundswellError: What stopped it instead.
    """
    from streams.errors import GroundswellError
    from streams.kafka.access.rights_table import explained
    from streams.worker import data_dir

    # Local checks come before the requests to Kafka and before the slow imports.
    check_port(settings)
    check_artifact(settings)
    data_dir.check_usable(settings.datadir)
    await asyncio.to_thread(_prepare, settings, stop.is_set)
    if stop.is_set():
        return
    from streams.worker.worker import Worker

    running = Worker(settings)
    if extend is not None:
        extend(running)
    try:
        await _first(stop.wait(), running.failure(), _started(running))
    except GroundswellError as error:
        refusal = await asyncio.to_thread(explained, settings, error)
        if refusal is None:
            raise
        raise refusal from error
    finally:
        await running.stop()


def _prepare(settings: Settings, stopped: Callable[[], bool]) -> None:
    """Check rights and create missing topics; retry while the broker cannot be reached, for `BROKER_WAIT_S`."""
    from streams.errors import BrokerError
    from streams.kafka import topics
    from streams.kafka.access import rights, rights_table

    end = monotonic() + settings.broker_wait_s
    while not stopped():
        try:
            with topics.admin(settings) as client:
                rights.require(client, rights_table.worker(settings))
                topics.create(client, topics.Topics(settings).of_worker())
        except BrokerError as error:
            if monotonic() >= end or not _unreachable(error):
                raise
            log.warning("broker_unreachable_retrying", extra={"error": str(error)})
            sleep(AGAIN_S)
        else:
            return


def _unreachable(error: BrokerError) -> bool:
    """Whether no broker answered. A refused certificate or login is not retried: waiting does not change it."""
    import ssl

    from aiokafka.errors import KafkaConnectionError as OtherConnectionError
    from kafka.errors import KafkaConnectionError

    causes: list[BaseException] = []
    cause = error.__cause__
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return False
    return bool(causes) and isinstance(causes[0], KafkaConnectionError | OtherConnectionError | OSError)


async def _started(running: Worker) -> None:
    from aiokafka.errors import KafkaError

    from streams.errors import BrokerError, one_line
    from streams.kafka.access import rights
    from streams.kafka.access.group_refusals import refusal

    try:
        await running.start()
    except KafkaError as error:
        refused = refusal(running.settings, error) or rights.refusal(error, running.settings)
        if refused is not None:
            raise refused from error
        # The broker answered when the topics were created.
        message = (
            f"the connection to Kafka was lost while the worker started ({one_line(error)}); start the worker again"
        )
        raise BrokerError(message) from error
    await asyncio.Event().wait()


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait until one of the coroutines ends, cancel the others, and raise its exception if it has one."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def check_artifact(settings: Settings) -> str:
    """Load the configured artifact; return its path and version.

    Raises:
        ArtifactError: It cannot be loaded.
    """
    from model.artifact import Artifact

    artifact = Artifact.load(Path(settings.model)) if settings.model else Artifact.default()
    return f"{settings.model or 'the one in the package'}, version {artifact.version}"


def check_port(settings: Settings) -> str:
    """Bind the web port and release it; return its address.

    Raises:
        SettingsError: The port is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.web_host, settings.web_port))
        except OSError as error:
            message = (
                f"{settings.web_host}:{settings.web_port} is taken ({error.strerror}): is a worker running already? "
            )
            raise SettingsError(message + "Otherwise set GROUNDSWELL_WEB_PORT") from error
    return f"{settings.web_host}:{settings.web_port} is free"
