"""The assignment of a worker without a broker: readiness, first steps of shards, late republishing, revocation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from streams.errors import StaleStep
from streams.kafka.topics import Topics
from streams.messages.packs.topic_identity import TopicState
from streams.settings.settings import Settings
from streams.telemetry.metrics import Metrics
from streams.telemetry.readiness import Readiness
from streams.worker.group import assignment as module
from streams.worker.group.assignment import Assignment


class Rig:
    """An assignment over fakes that record the calls."""

    def __init__(self, settings: Settings) -> None:
        self.topics = Topics(settings)
        self.readiness = Readiness(loaded=True)
        self.metrics = Metrics()
        self.calls: list[Any] = []
        self.errors: list[BaseException] = []
        self.open = {0: "version", 1: "version"}
        self.begin_error: Exception | None = None
        self.running = True
        self.host: Any = SimpleNamespace(
            offsets={0: 7},
            takeovers=SimpleNamespace(new={}),
            versions=lambda: self.open,
            request_republish=self._request_republish,
            note_score_topic=self._note_score_topic,
        )
        consumer: Any = SimpleNamespace(quiesce=self._quiesce, stop_flow=lambda: self.calls.append("stop_flow"))
        work: Any = SimpleNamespace(run_pending=self._run_pending, former_partitions={})
        none: Any = None
        self.work = work
        self.assignment = Assignment(
            settings,
            self.topics,
            self.host,
            work,
            none,
            SimpleNamespace(epoch=3),  # type: ignore[arg-type]
            self.readiness,
            self.metrics,
            consumer=lambda: consumer,
            fail=self.errors.append,
            running=lambda: self.running,
        )

    async def _request_republish(self, partition: int, takeover: int | None) -> None:
        self.calls.append(("republish", partition, takeover))

    async def _run_pending(self, partition: int) -> None:
        if self.begin_error is not None:
            raise self.begin_error
        self.calls.append(("begin", partition))

    async def _note_score_topic(self, _topic: TopicState, **_which: bool) -> dict[int, Any]:
        return {
            0: SimpleNamespace(former_partitions=(4,), republish=True),
            1: SimpleNamespace(former_partitions=(), republish=False),
        }

    async def _quiesce(self, timeout_s: float) -> None:
        self.calls.append(("quiesce", timeout_s))

    def run(self, work: Callable[[], Any]) -> None:
        """Call a function on an event loop and wait for the steps that it started."""

        async def run_all() -> None:
            result = work()
            if asyncio.iscoroutine(result):
                await result
            await asyncio.sleep(0.05)

        asyncio.run(run_all())


@pytest.fixture
def rig(offline_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Return the assignment of a worker with two shards, with short delays."""
    monkeypatch.setattr(module, "LATE_S", 0.01)
    monkeypatch.setattr(module, "SWITCH_S", 0.01)
    return Rig(offline_settings.model_copy(update={"shards": 2}))


def test_assigned_shards_take_a_first_step(rig: Rig) -> None:
    """The worker is ready, every assigned shard steps once, and a shard that was taken over republishes later."""
    mutations = rig.topics.mutations.name
    rig.host.takeovers.new[1] = 5
    rig.run(lambda: rig.assignment.on_assigned([TP(mutations, 0), TP(mutations, 1), TP("influence.share.v1", 0)]))
    assert rig.readiness.ready
    assert rig.calls == [("begin", 0), ("begin", 1), ("republish", 1, 5), ("begin", 1)]
    assert rig.host.takeovers.new == {}


def test_without_partitions_a_worker_is_not_ready(rig: Rig) -> None:
    """The detail names the reason."""
    rig.run(lambda: rig.assignment.on_assigned([]))
    assert not rig.readiness.ready
    assert "other workers" in rig.readiness.detail


def test_a_closed_shard_does_not_republish(rig: Rig) -> None:
    """Another worker may have it by then; a worker that stops does not republish either."""
    del rig.open[1]
    rig.run(lambda: rig.assignment.republish_soon(1))
    rig.readiness.stopping = True
    rig.run(lambda: rig.assignment.republish_soon(0))
    assert rig.calls == []


def test_a_switched_shard_republishes(rig: Rig) -> None:
    """After the delay for the other shards, and it is counted."""
    rig.run(lambda: rig.assignment.on_switch(0))
    assert rig.calls == [("republish", 0, None), ("begin", 0)]
    assert rig.metrics.switches._value.get() == 1


@pytest.mark.parametrize(("error", "stops"), [(StaleStep("closed"), False), (ValueError("broken"), True)])
def test_errors_of_a_step(rig: Rig, error: Exception, stops: bool) -> None:
    """A shard that was closed meanwhile is skipped; any other error stops the worker."""
    rig.begin_error = error
    rig.run(lambda: rig.assignment.step_soon(0))
    assert rig.errors == ([error] if stops else [])


def test_a_changed_score_topic_is_republished(rig: Rig) -> None:
    """Only the shards that published to another one step again; the former partitions are passed on."""
    score, by_topic = rig.topics.score.name, rig.topics.topic.name
    none = TopicState("id", 0)
    rig.run(lambda: rig.assignment.on_score_topic({score: none, by_topic: none}))
    assert rig.calls == []
    for name, other in ((score, by_topic), (by_topic, score)):
        rig.run(lambda name=name, other=other: rig.assignment.on_score_topic({name: TopicState("id", 8), other: none}))
    assert rig.calls == [("begin", 0)] * 2
    assert rig.work.former_partitions == {score: {4}, by_topic: {4}}


def test_revocation_and_stop_wait_for_polls_in_work(rig: Rig) -> None:
    """Both commit what is done; a failed worker commits nothing at its stop."""
    rig.readiness.sought = True
    rig.run(rig.assignment.on_revoked)
    assert not rig.readiness.sought
    rig.run(rig.assignment.close)
    assert rig.calls == [("quiesce", module.REVOKE_S), "stop_flow", ("quiesce", module.STOP_S)]
    rig.calls.clear()
    rig.running = False
    rig.run(rig.assignment.close)
    assert rig.calls == []


def test_a_removed_shard_is_no_longer_held(rig: Rig) -> None:
    """Shards with a state on disk are held, and open ones with their present offset."""
    rig.assignment._saved_offsets = {0: 1, 2: 9}
    assert rig.assignment.held() == {0: 7, 2: 9}
    rig.assignment.forget_shard(2)
    assert rig.assignment.held() == {0: 7}
