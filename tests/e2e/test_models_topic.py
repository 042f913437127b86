"""The models topic on a broker that is not available at first."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from streams.errors import BrokerError
from streams.kafka import topics
from streams.settings.settings import Settings
from streams.worker.rollout.models_topic import ModelsTopicReader

LATE_S = 1.5


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def opens(settings: Settings, port: int, wait_s: float) -> int:
    """Read the models topic through a proxy that starts after `LATE_S`; return the number of records read."""
    host, real = settings.broker.split(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection(host, int(real))
        await asyncio.gather(_forward(reader, outer), _forward(inner, writer))

    board = ModelsTopicReader(settings.model_copy(update={"broker": f"127.0.0.1:{port}"}), wait_s)
    opening = asyncio.ensure_future(board.open())
    try:
        await asyncio.wait({opening}, timeout=LATE_S)
        proxy = await asyncio.start_server(serve, "127.0.0.1", port)
        async with proxy:
            await opening
    finally:
        await board.close()
    return len(board.state.parts)


@pytest.mark.parametrize("wait_s", [0.0, 20.0])
def test_a_reader_waits_for_a_late_broker(settings: Settings, web_port: int, wait_s: float) -> None:
    """With a waiting time the topic is read as soon as the broker is available; without one it is an error."""
    with topics.admin(settings) as client:
        topics.create(client, topics.Topics(settings).all())
    if wait_s:
        assert asyncio.run(opens(settings, web_port, wait_s)) == 0
    else:
        with pytest.raises(BrokerError, match="cannot be read"):
            asyncio.run(opens(settings, web_port, wait_s))
