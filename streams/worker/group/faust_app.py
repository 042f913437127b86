"""The Faust app of a worker: consumer group, agents and web server, without Faust's own topics and folders."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import faust
from faust.types import TP

from streams.errors import WorkerError
from streams.kafka.consumer.transport import Transport
from streams.kafka.lease import Lease
from streams.messages.packs.topic_identity import Committed
from streams.settings.settings import Settings

if TYPE_CHECKING:
    from streams.telemetry.readiness import Readiness
    from streams.worker.group.positions import StartPosition

COMMIT_S = 0.5


class GroupMember(Protocol):
    """What the app and its transport call on the worker."""

    loop: asyncio.AbstractEventLoop
    readiness: Readiness

    def fail(self, error: BaseException) -> None:
        """Stop the worker with this error."""

    def held(self) -> dict[int, int]:
        """Return the shards with a state on this worker, and the log offset at which each state ends."""
        ...

    async def seek_targets(
        self, held: Mapping[TP, Committed], begin: Mapping[TP, int], end: Mapping[TP, int]
    ) -> dict[TP, StartPosition]:
        """Return where to read each assigned partition from."""
        ...

    def on_sought(self, tps: list[TP]) -> None:
        """Start work: the positions of these partitions are restored."""


class App(faust.App):
    """A Faust app with the transport of `streams.kafka` and no folder of its own."""

    logger = logging.getLogger("faust.app")  # otherwise Faust logs every step of its start under this module's name
    settings: Settings
    worker: GroupMember
    lease: Lease
    web_url: str
    """The address of the web port for other workers and their clients."""

    def name_taken(self) -> None:
        """Stop the worker: another one has joined the group under its name. Called by the consumer's thread."""
        text = f"another worker joined as GROUNDSWELL_INSTANCE={self.settings.instance}; give each a name of its own"
        self.worker.loop.call_soon_threadsafe(self.worker.fail, WorkerError(text))

    def held(self) -> dict[int, int]:
        """Return the shards with a state on this worker; the transport calls it at each join."""
        return self.worker.held()

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Transport:
        return Transport(self.conf.broker_producer, self)

    def _create_directories(self) -> None:
        """Create nothing: Faust's folders are for its tables, and there are none."""

    async def seek_targets(
        self, held: Mapping[TP, Committed], begin: Mapping[TP, int], end: Mapping[TP, int]
    ) -> dict[TP, StartPosition]:
        """Return where to read each partition from; the transport calls it at each assignment."""
        return await self.worker.seek_targets(held, begin, end)

    def on_sought(self, tps: list[TP]) -> None:
        """Start work on these partitions; the transport calls it once positions are restored."""
        self.worker.on_sought(tps)


def new_app(settings: Settings, web_port: int) -> App:
    """Return a Faust app without the topics, supervisors and folders that Faust creates by default."""
    app = App(
        settings.consumer_group,
        broker=[f"kafka://{address}" for address in settings.servers],
        topic_allow_declare=False,  # streams/kafka/topics.py creates the topics
        topic_disable_leader=True,  # nothing here needs a leader, so no topic for its election
        autodiscover=False,  # `Worker` creates the agents; no modules are searched for them
        agent_supervisor="mode.CrashingSupervisor",  # an agent that fails stops the worker and is not restarted
        stream_wait_empty=False,  # `Assignment.on_revoked` bounds how long a rebalance waits for polls in work
        broker_commit_interval=COMMIT_S,  # after a crash, everything since the last commit is read again
        broker_session_timeout=settings.session_timeout_s,
        # Also the maximum time to open a state, which Faust does inside a seek.
        broker_request_timeout=3_600.0,
        web_host=settings.web_host,
        web_bind=settings.web_host,
        web_port=web_port,
        web_in_thread=False,  # the handlers read the worker's state on its event loop
    )
    app.settings = settings
    app.web_url = settings.web_url or _url(settings.web_host, web_port)
    app.lease = Lease(settings.session_timeout_s)
    return app


def _url(host: str, port: int) -> str:
    """Return the address of a port; all interfaces are given by the name of this machine."""
    name = socket.gethostname() if host in {"0.0.0.0", "::"} else host  # noqa: S104 - it is replaced
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def free_port(host: str) -> int:
    """Return a TCP port of the host that no process listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
