"""The Faust app of a worker: it creates nothing by itself and passes the transport's calls to the worker."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from streams.errors import WorkerError
from streams.settings.settings import Settings
from streams.worker.group.faust_app import free_port, new_app


def test_calls_are_passed_to_the_worker(offline_settings: Settings) -> None:
    """The transport calls the app; the app calls the worker, also for a name that another worker has taken."""
    calls: list[Any] = []

    async def seek_targets(*arguments: Any) -> dict[TP, Any]:
        calls.append(arguments)
        return {}

    async def run() -> None:
        app = new_app(offline_settings.model_copy(update={"instance": "w0"}), 6066)
        app.worker = SimpleNamespace(  # type: ignore[assignment]
            loop=asyncio.get_running_loop(),
            fail=calls.append,
            held=lambda: {0: 7},
            seek_targets=seek_targets,
            on_sought=calls.append,
        )
        assert not app.conf.topic_allow_declare
        assert app.held() == {0: 7}
        assert await app.seek_targets({}, {}, {}) == {}
        app.on_sought([TP("m", 0)])
        app.name_taken()
        await asyncio.sleep(0)

    asyncio.run(run())
    assert calls[:2] == [({}, {}, {}), [TP("m", 0)]]
    assert isinstance(calls[2], WorkerError)
    assert "GROUNDSWELL_INSTANCE=w0" in str(calls[2])


def test_a_free_port_can_be_bound() -> None:
    """The port is released before it is returned."""
    port = free_port("127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
