"""Network between workers and broker: TCP proxies that can refuse connections, stop forwarding, and recover.

Each worker reaches the broker through its own link, which the broker advertises on a listener of its own: one worker
can be cut off while the others continue.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from streams.embedded.broker import HOST, EmbeddedKafka

CHUNK = 1 << 16
ANSWER_S = 10.0


def free_ports(count: int) -> list[int]:
    """Choose different ports that are free now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class Link:
    """One proxy: listens at `port`, forwards to the broker at `target` (which may change)."""

    def __init__(self) -> None:
        self.port = 0
        self.target = 0
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Start listening, at the same port as before if there was one."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, HOST, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Close all connections and accept no new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def silence(self) -> None:
        """Forward nothing; connections stay open and data in transit stays buffered."""
        self._flows.clear()

    async def heal(self) -> None:
        """Forward again."""
        self._flows.set()
        await self.listen()

    async def close(self) -> None:
        """Close the listener and all connections."""
        await self.refuse()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            await self._flows.wait()
            with suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(HOST, self.target)
                self._writers.add(far_writer)
                try:
                    pumps = self._pump(reader, far_writer), self._pump(far_reader, writer)
                    await asyncio.wait(map(asyncio.ensure_future, pumps), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    self._drop(far_writer)
        finally:
            self._drop(writer)

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()


class Network:
    """Links on their own loop and thread; the methods may be called from any other thread."""

    def __init__(self, links: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()
        self.links = self._run(self._begin(links))

    async def _begin(self, links: int) -> list[Link]:
        found = [Link() for _ in range(links)]
        for link in found:
            await link.listen()
        return found

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_S)

    def _chosen(self, number: int) -> list[Link]:
        return self.links if number < 0 else [self.links[number]]

    def refuse(self, number: int = -1) -> None:
        """Make a link (−1: all) refuse connections."""
        for link in self._chosen(number):
            self._run(link.refuse())

    def silence(self, number: int = -1) -> None:
        """Make a link (−1: all) stop forwarding."""
        for link in self._chosen(number):
            self._run(link.silence())

    def heal(self, number: int = -1) -> None:
        """Make a link (−1: all) forward again."""
        for link in self._chosen(number):
            self._run(link.heal())

    def close(self) -> None:
        """Close all links and end the thread."""
        for link in self.links:
            self._run(link.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class LinkedKafka(EmbeddedKafka):
    """An embedded Kafka with one additional listener per link, advertised at the link's port."""

    network: Network

    def address_of(self, number: int) -> str:
        """The broker address for the worker behind a link."""
        return f"{HOST}:{self.network.links[number].port}"

    def _configure(self) -> None:
        links = self.network.links
        for link, port in zip(links, free_ports(len(links)), strict=True):
            link.target = port
        super()._configure()
        settings = self.folder / "server.properties"
        text = settings.read_text(encoding="utf-8")
        lines = dict(line.split("=", 1) for line in text.splitlines())
        names = [f"LINK{number}" for number in range(len(links))]
        inner = [f"{name}://{HOST}:{link.target}" for name, link in zip(names, links, strict=True)]
        outer = [f"{name}://{HOST}:{link.port}" for name, link in zip(names, links, strict=True)]
        lines["listeners"] = ",".join([lines["listeners"], *inner])
        lines["advertised.listeners"] = ",".join([lines["advertised.listeners"], *outer])
        plain = [f"{name}:PLAINTEXT" for name in ("PLAINTEXT", "CONTROLLER", *names)]
        lines["listener.security.protocol.map"] = ",".join(plain)
        lines["inter.broker.listener.name"] = "PLAINTEXT"
        settings.write_text("".join(f"{name}={value}\n" for name, value in lines.items()), encoding="utf-8")
