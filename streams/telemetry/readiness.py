"""Whether a worker is ready: state loaded, partitions assigned, positions restored."""

from __future__ import annotations

from dataclasses import dataclass, field

from streams.telemetry.liveness import POLLS, SHARDS, Liveness


@dataclass
class Readiness:
    """The state behind `/readyz`, set by the worker.

    Attributes:
        loaded: the states of the assigned shards are loaded.
        sought: the positions of the assigned partitions are restored.
        stopping: the worker is shutting down.
        detail: the operation in progress, for people.
        pending: the topic that is missing or waits for assignment; empty if none.
        done: units of the operation that are done.
        total: units of the operation; 0 if unknown.
        partitions: the assigned partitions.
        liveness: the progress of threads and clients.
    """

    loaded: bool = False
    sought: bool = False
    stopping: bool = False
    detail: str = "starting"
    pending: str = ""
    done: int = 0
    total: int = 0
    partitions: list[str] = field(default_factory=list)
    liveness: Liveness = field(default_factory=Liveness)

    @property
    def ready(self) -> bool:
        """Whether the state is loaded, positions are restored, no topic is pending and the worker is not stopping."""
        return self.loaded and self.sought and not self.stopping and not self.pending

    def progress(self, detail: str, done: int, total: int) -> None:
        """Record the progress of a load; called by the shard thread."""
        self.liveness.report(SHARDS)
        self.liveness.report(POLLS)  # no poll returns while a shard is loading
        self.detail, self.done, self.total = detail, done, total

    def as_dict(self) -> dict[str, object]:
        """Return the response of `/readyz`."""
        answer: dict[str, object] = {"ready": self.ready, "detail": "ready" if self.ready else self._why()}
        if self.total and not self.ready:
            answer["progress"] = round(self.done / self.total, 3)
        return {**answer, "partitions": self.partitions}

    def _why(self) -> str:
        return self.pending if self.pending and self.loaded and self.sought and not self.stopping else self.detail
