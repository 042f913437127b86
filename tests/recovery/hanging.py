"""A worker one of whose threads hangs once it is ready: `python -m tests.recovery.hanging loop|consumer|shard`."""

from __future__ import annotations

import sys
import time
from typing import Any

from streams.commands.worker import worker
from streams.telemetry import liveness
from streams.worker import worker as worker_module

BOUND_S = 2.0
HANG_S = 120.0


class Hanging(worker_module.Worker):
    """A worker that hangs as soon as it has partitions."""

    def on_sought(self, tps: list[Any]) -> None:
        """Start to hang."""
        super().on_sought(tps)
        match sys.argv[1]:
            case "loop":
                self.loop.call_later(1.0, time.sleep, HANG_S)
            case "consumer":
                self.consumer.thread_loop.call_soon_threadsafe(time.sleep, HANG_S)
            case "shard":
                self.host._work._thread.submit(time.sleep, HANG_S)


if __name__ == "__main__":
    liveness.LOOP_S = liveness.STEP_S = BOUND_S
    worker_module.Worker = Hanging  # type: ignore[misc]
    worker()
