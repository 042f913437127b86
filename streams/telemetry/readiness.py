"""Whether a worker may be sent traffic: state loaded, partitions owned, positions restored."""

from __future__ import annotations

from dataclasses import dataclass, field

from streams.telemetry.liveness import POLLS, SHARDS, Liveness


@dataclass
class Readiness:
    """What `/readyz` reads; the worker sets it as it goes.

    detail: what it is doing now, for people. done, total: progress of that, total 0 if unknown.
    pending: which topic is missing or waits to be assigned; empty if none. liveness: whether it does anything at all.
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
        """Everything is in place and nothing is being given up."""
        return self.loaded and self.sought and not self.stopping and not self.pending

    def progress(self, what: str, done: int, total: int) -> None:
        """Note what is being loaded and how far it is; told by the shard thread."""
        self.liveness.sign(SHARDS)
        self.liveness.sign(POLLS)  # no poll returns while a shard is loaded
        self.detail, self.done, self.total = what, done, total

    def as_dict(self) -> dict[str, object]:
        """The answer of `/readyz`."""
        answer: dict[str, object] = {"ready": self.ready, "detail": "ready" if self.ready else self._why()}
        if self.total and not self.ready:
            answer["progress"] = round(self.done / self.total, 3)
        return {**answer, "partitions": self.partitions}

    def _why(self) -> str:
        return self.pending if self.pending and self.loaded and self.sought and not self.stopping else self.detail
