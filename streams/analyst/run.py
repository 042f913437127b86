"""Run an analyst in this process: topics, web server, then the analyst until a signal or an error stops it."""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial

from streams.errors import SettingsError
from streams.settings.settings import Settings
from streams.worker.run import run_until_signal

log = logging.getLogger(__name__)

BATCH_BYTES = 128 * 1024


def run(settings: Settings) -> None:
    """Run an analyst in this process until SIGTERM or SIGINT.

    Raises:
        GroundswellError: What stopped it instead.
    """
    run_until_signal(partial(serve, settings))


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run an analyst on the running loop until `stop` is set.

    Raises:
        GroundswellError: What stopped it instead.
    """
    from aiokafka import AIOKafkaProducer
    from aiokafka.errors import KafkaError

    from streams.analyst.analyst import Analyst
    from streams.analyst.log_reader import log_reader, refusal
    from streams.analyst.web import serving
    from streams.settings.connection import aiokafka_arguments
    from streams.telemetry.analyst_metrics import AnalystMetrics

    check_port(settings)
    await asyncio.to_thread(_prepare, settings)
    analyst = Analyst(settings, AnalystMetrics())
    producer = AIOKafkaProducer(
        **aiokafka_arguments(settings), acks="all", enable_idempotence=True, max_batch_size=BATCH_BYTES
    )
    try:
        async with serving(settings, analyst):
            await producer.start()
            async with log_reader(settings, analyst.topics.mutations) as reader:
                await analyst.restore()
                await analyst.run(reader, producer, stop)
    except KafkaError as error:
        raise refusal(error, settings) from error
    finally:
        await producer.stop()
        await analyst.close()


def _prepare(settings: Settings) -> None:
    """Check rights, check the mutations topic, and create the analyst's topics."""
    from streams.kafka import topics
    from streams.kafka.access import rights, rights_table

    registry = topics.Topics(settings)
    with topics.admin(settings, settings.broker_wait_s) as client:
        rights.require(client, rights_table.analyst(settings))
        topics.create(client, [registry.mutations, *registry.analysis])


def check_port(settings: Settings) -> None:
    """Bind the analyst's port and release it.

    Raises:
        SettingsError: The port is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.web_host, settings.analyst_port))
        except OSError as error:
            raise SettingsError(
                f"{settings.web_host}:{settings.analyst_port} is taken ({error.strerror}): is an analyst running "
                "already? Otherwise set GROUNDSWELL_ANALYST_PORT"
            ) from error
