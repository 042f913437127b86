"""A worker whose every pack is a step, so that steps run ahead of the acknowledgement of the one before.

python -m tests.support.small_steps FILE          instead of: groundswell worker; FILE grows by a byte per step ahead
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from streams.worker.processing import micro_batches, publish_and_commit
from streams.worker.processing.shard_host import ShardHost

ACKNOWLEDGED_S = 0.02
"""Delay of each acknowledgement, in which the next step is computed."""
_finish, _step = publish_and_commit._finish, ShardHost.step


async def slow_finish(step: publish_and_commit.Step) -> bool:
    """Publish and commit like the real function, as with a slow broker."""
    await asyncio.sleep(ACKNOWLEDGED_S)
    return await _finish(step)


def note_step_ahead() -> None:
    """Append a byte to the file."""
    with Path(sys.argv[1]).open("ab") as file:
        file.write(b".")


async def step(self: ShardHost, partition: int, *arguments: Any, **named: Any) -> Any:
    """Run a step like the real method, and note whether it runs ahead."""
    if self.ahead(partition):
        note_step_ahead()
    return await _step(self, partition, *arguments, **named)


if __name__ == "__main__":
    micro_batches.STEP_MUTATIONS = 1
    publish_and_commit._finish = slow_finish
    ShardHost.step = step  # type: ignore[method-assign]
    from streams.cli import run

    raise SystemExit(run(["worker"]))
