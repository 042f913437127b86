"""A worker whose memory fails: at SIGUSR1 a bit of every first-layer output of users is flipped.

python -m tests.deploy.spoiled          instead of: groundswell worker
"""

from __future__ import annotations

import asyncio
import signal

import numpy as np

from graphstate.types import USER
from streams.shard.shard import Shard


def spoil(shard: Shard) -> None:
    """Change the outputs of all users of a shard."""
    hidden = shard.engine.hidden1[USER]
    hidden[: shard.view.rows(USER)] += np.float32(0.25)


if __name__ == "__main__":
    from streams.cli import run
    from streams.worker import worker

    class Spoiled(worker.Worker):
        """A worker that spoils its memory on request."""

        async def start(self) -> None:
            """Start, and wait for the signal."""
            loop, tasks = asyncio.get_running_loop(), set()

            def flip() -> None:
                tasks.add(loop.create_task(self.host.read(spoil)))

            loop.add_signal_handler(signal.SIGUSR1, flip)
            await super().start()

    worker.Worker = Spoiled  # type: ignore[misc]
    raise SystemExit(run(["worker"]))
