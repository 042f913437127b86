"""Background audit: keeps to its share of CPU time, counts results, and repairs on the shard thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from graphstate.types import USER, GraphSpec
from model.artifact import Artifact, untrained
from model.config import ModelConfig
from model.network.pyg_reference import Reference
from streams.errors import ModelRefused
from streams.messages.packs.mutation_packs import Record
from streams.shard.shard import Shard
from streams.telemetry.metrics import Metrics
from streams.worker.inspection.background_audit import START_S, Auditor, rest_s
from streams.worker.inspection.user_audit import LIMIT
from streams.worker.processing.shard_host import ShardHost
from tests.support.strategies import history

ARTIFACT = untrained(ModelConfig(hidden=8, heads=2, head_hidden=8, window=3, floor=1), 1)
SPEC = GraphSpec(floor=1, window=3)


class Stopped(Exception):
    """Raised by `sleep` to end an audit."""


class Here(Reference):
    """Reference in this process with the interface of `ReferenceProcess`; `ended` makes calls fail."""

    closed = ended = False

    def start(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Mark as closed."""
        self.closed = True

    def __call__(self, *arguments: Any) -> Any:
        """Compute, or fail once the process has ended."""
        if self.ended:
            raise ModelRefused("the process ended")
        return super().__call__(*arguments)


class Audited:
    """Auditor of one shard with some events; its clock advances only by reads and sleeps."""

    def __init__(self, folder: Path, share: float, rounds: int) -> None:
        self.now = 0.0
        self.rounds = rounds
        self.slept: list[float] = []
        self.references: list[Here] = []
        self.metrics = Metrics()
        self.host = ShardHost(lambda _: Shard.open(folder, ARTIFACT, SPEC))
        self.auditor = Auditor(
            self.host,
            self.metrics,
            share,
            make_reference=self.reference,
            random=Random(3),
            clock=self.clock,
            sleep=self.sleep,
        )

    def reference(self, artifact: Artifact) -> Any:
        """Make a reference in this process."""
        self.references.append(Here(artifact.weights, artifact.config))
        return self.references[-1]

    def clock(self) -> float:
        """Return the time, a hundredth of a second later with each call."""
        self.now += 0.01
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Advance the clock; stop after some rounds."""
        self.now += seconds
        self.slept.append(seconds)
        if len(self.slept) > self.rounds:
            raise Stopped

    def counted(self, outcome: str) -> float:
        """Return the number of users with this outcome."""
        return float(self.metrics.registry.get_sample_value("groundswell_audit_nodes_total", {"outcome": outcome}) or 0)

    def value(self, name: str) -> float:
        """Return the value of a metric without labels."""
        return float(self.metrics.registry.get_sample_value(f"groundswell_{name}") or 0)

    async def run(self, spoil: Callable[[Shard], Any] = lambda _: None) -> None:
        """Process the events, spoil the shard, then audit."""
        await self.host.sync_assignment({0: 0})
        await self.host.step(0, [Record.of(0, history(4, 600, users=20, contents=40), 0)])
        await self.host.commit(0, 1, {}, lambda: True)
        await self.host.read(spoil)
        with pytest.raises(Stopped):
            await self.auditor.run()
        await self.host.close()


@pytest.mark.parametrize("share", [0.01, 0.25, 1.0])
def test_keeps_to_its_share(tmp_path: Path, share: float) -> None:
    """Work takes the configured share of all time."""
    audited = Audited(tmp_path, share, 20)
    asyncio.run(audited.run())
    spent = audited.value("audit_seconds_total")
    assert spent == pytest.approx(20 * 0.02)
    first, *slept = audited.slept
    assert spent / (spent + sum(slept)) == pytest.approx(share)
    assert first == rest_s(START_S, share)
    assert audited.counted("fine") == 20
    assert audited.value("audit_error") <= LIMIT


def test_rest() -> None:
    """At 1 % of a core the pause is 99 times the work; at a whole core there is none."""
    assert rest_s(0.02, 0.01) == pytest.approx(1.98)
    assert rest_s(0.02, 1.0) == 0


def test_mismatches_are_repaired_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A mismatch is counted, reported, logged without the user id and repaired, and the score is republished."""
    audited = Audited(tmp_path, 1.0, 120)
    spoilt: list[Shard] = []

    def spoil(shard: Shard) -> None:
        spoilt.append(shard)
        shard.engine.score[: shard.view.rows(USER)] += np.float32(0.5)

    with caplog.at_level(logging.WARNING, "streams.worker.inspection.background_audit"):
        asyncio.run(audited.run(spoil))
    healed = audited.counted("healed")
    assert healed > 5
    assert spoilt[0].publisher.republish_pending
    assert audited.counted("fine") == 120 - healed
    assert audited.counted("failed") == 0
    assert audited.value("audit_error") == pytest.approx(0.5, abs=1e-3)
    warned = [record for record in caplog.records if record.name == "streams.worker.inspection.background_audit"]
    assert len(warned) == healed
    assert {record.message for record in warned} == {"audit_mismatch_repaired"}
    assert all(record.__dict__["mismatches"] == ["score"] and "user" not in record.__dict__ for record in warned)


def test_an_uncommitted_step_is_not_audited(tmp_path: Path) -> None:
    """No user is audited while memory is ahead of the committed state."""

    async def tried() -> float:
        audited = Audited(tmp_path, 1.0, 1)
        await audited.host.sync_assignment({0: 0})
        await audited.host.step(0, [Record.of(0, history(4, 200), 0)])
        spent = await audited.auditor.once()
        await audited.host.commit(0, 1, {}, lambda: True)
        assert await audited.auditor.once() > 0
        await audited.host.close()
        return spent

    assert asyncio.run(tried()) == 0


def test_an_ended_process_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After the end of the reference process an audit counts as failed, and the next one starts another process."""

    async def tried() -> None:
        audited = Audited(tmp_path, 1.0, 1)
        await audited.host.sync_assignment({0: 0})
        await audited.host.step(0, [Record.of(0, history(4, 200), 0)])
        await audited.host.commit(0, 1, {}, lambda: True)
        assert await audited.auditor.once() > 0
        audited.references[0].ended = True
        assert await audited.auditor.once() == 0
        assert (audited.counted("failed"), audited.references[0].closed) == (1, True)
        assert await audited.auditor.once() > 0
        assert (len(audited.references), audited.counted("fine")) == (2, 2)
        audited.auditor.close()
        assert audited.references[1].closed
        await audited.host.close()

    asyncio.run(tried())
    assert [record.message for record in caplog.records] == ["audit_failed"]


def test_a_process_that_ends_during_a_repair_is_replaced(tmp_path: Path) -> None:
    """The audit counts as failed, the worker continues, and the next audits pass or repair the user."""

    async def tried() -> None:
        audited = Audited(tmp_path, 1.0, 1)
        await audited.host.sync_assignment({0: 0})
        await audited.host.step(0, [Record.of(0, history(4, 200), 0)])
        await audited.host.commit(0, 1, {}, lambda: True)

        def spoil(shard: Shard) -> None:
            shard.engine.score[: shard.view.rows(USER)] += np.float32(0.5)

        await audited.host.read(spoil)
        between = audited.host.run_on_any

        async def ended_between(*arguments: Any) -> Any:
            for reference in audited.references:
                reference.ended = True
            return await between(*arguments)

        await audited.auditor.once()
        before = audited.counted("healed")
        audited.host.run_on_any = ended_between  # type: ignore[method-assign]
        for _ in range(3):
            await audited.auditor.once()
        audited.host.run_on_any = between  # type: ignore[method-assign]
        assert (before, audited.counted("failed")) == (1, 3)
        while audited.counted("healed") + audited.counted("fine") < 20:
            await audited.auditor.once()
        assert audited.counted("failed") == 3
        await audited.host.close()

    asyncio.run(tried())
