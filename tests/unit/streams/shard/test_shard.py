"""Step of a shard: what it publishes, what a restart restores, and that it equals the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphstate.storage.store import FAMILIES
from graphstate.types import GraphSpec, Kind, Mutation
from model.artifact import untrained
from model.config import ModelConfig
from model.types import Population, measure
from streams.messages.packs.mutation_packs import Record
from streams.messages.packs.source_progress import SourceProgress
from streams.offline.replay import batches, cluster, reference_error, replay
from streams.shard.score_publisher import Publishing
from streams.shard.shard import Shard
from tests.support.graphs import DAY, at, create, follow, share

ARTIFACT = untrained(ModelConfig())


def _log(users: int = 40, events: int = 1_500, seed: int = 3) -> list[Mutation]:
    random = np.random.default_rng(seed)
    log = [create(k, f"u{k % users}", f"c{k}") for k in range(120)]
    for k in range(events):
        user, other = f"u{random.integers(users)}", f"u{random.integers(users)}"
        minute = 200 + k * 3
        if random.random() < 0.4:
            log.append(follow(minute, user, other))
        else:
            log.append(share(minute, user, f"c{random.integers(120)}", other))
    return log


def test_equals_reference_and_itself(tmp_path: Path) -> None:
    """Any batch size ends with bit-equal scores, and all of them within 1e-5 of PyTorch Geometric."""
    log, results = _log(), []
    for size in (1, 37, 5_000):
        with cluster(ARTIFACT, GraphSpec(), tmp_path / str(size), 1) as opened:
            replay(opened, log[:400] if size == 1 else log, size)
            if size == 1:
                replay(opened, log[400:], 100)
            results.append(opened.scores())
            assert reference_error(opened, log, GraphSpec()) <= 1e-5
    for other in results[1:]:
        assert other[0] == results[0][0]
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(results[0][1:], other[1:], strict=True))


def test_publishes_changes(tmp_path: Path) -> None:
    """Every user is published once; the same events again publish nothing."""
    shard = Shard.open(tmp_path, ARTIFACT, GraphSpec())
    log = _log(events=300)
    first = shard.step(log)
    assert sorted(score.user for score in first.scores) == sorted(shard.reads.scores()[0])
    assert all(0 <= score.percentile <= 100 and score.reach >= 0 for score in first.scores)
    shard.commit()
    assert shard.step(log).scores == []
    shard.close()


def test_publishing_thresholds(tmp_path: Path) -> None:
    """Without thresholds every changed score is published, with huge ones none twice."""
    log = _log(events=600)
    published = []
    for name, rule in (("all", Publishing(0.0, 0.0)), ("few", Publishing(1e9, 1e9))):
        shard = Shard.open(tmp_path / name, ARTIFACT, GraphSpec(), publishing=rule)
        scores = [score.user for some in batches(log, 50) for score in shard.step(some).scores]
        published.append(scores)
        shard.close()
    assert len(set(published[1])) == len(published[1])
    assert len(published[0]) > 3 * len(published[1])


def test_a_changed_population_moves_all_scores(tmp_path: Path) -> None:
    """Users whom no event names follow the population: scores are the reference's, and those that moved published."""
    log = _log()
    with cluster(ARTIFACT, GraphSpec(), tmp_path, 1) as opened:
        (shard,), populations, published = opened.shards, set(), dict[str, float]()
        for batch in batches(log, 60):
            outcome = shard.step(batch)
            shard.commit()
            populations.add(shard.population.population)
            published |= {score.user: score.reach for score in outcome.scores}
            names, reach, _, _ = shard.reads.scores()
            for user, now in zip(names, reach.tolist(), strict=True):
                assert abs(now - published[user]) <= 0.0201 * max(published[user], 1e-3)
            snapshot = shard.graph.snapshot()
            assert shard.population.population == Population.of(measure(snapshot.own[snapshot.live]))
        assert len(populations) > 5
        assert reference_error(opened, log, GraphSpec()) <= 1e-5


def test_restart_continues(tmp_path: Path) -> None:
    """A shard that is closed and opened between batches publishes the same as one that stays open."""
    log = _log()
    through = Shard.open(tmp_path / "through", ARTIFACT, GraphSpec())
    outcomes = []
    for n, some in enumerate(batches(log, 200)):
        outcomes.append(through.step(some))
        through.commit(n + 1, {"t:0": n})
    stopped = []
    for n, some in enumerate(batches(log, 200)):
        shard = Shard.open(tmp_path / "stopped", ARTIFACT, GraphSpec())
        assert shard.next_offset == n
        assert shard.marks == ({"t:0": n - 1} if n else {})
        stopped.append(shard.step(some))
        shard.commit(n + 1, {"t:0": n})
        shard.close()
    for mine, theirs in zip(outcomes, stopped, strict=True):
        assert {score.user: score for score in mine.scores} == {score.user: score for score in theirs.scores}
        assert mine.alerts == theirs.alerts
    through.close()


def test_a_step_may_run_before_the_write_of_the_one_before(tmp_path: Path) -> None:
    """Each WriteBatch has exactly its own step, whatever ran ahead; the outputs are those of steps in a row."""
    log = _log(events=600)
    some = [Mutation(Kind.DELETE, at(2_500), "u1", "c41"), Mutation(Kind.UNSHARE, at(2_500), "u2", "c5")]
    steps = [*batches(log, 100), some, [Mutation(Kind.FORGET, at(2_600), "u3")], log[:50]]
    row = Shard.open(tmp_path / "row", ARTIFACT, GraphSpec(retention_s=2 * 86_400))
    ahead = Shard.open(tmp_path / "ahead", ARTIFACT, GraphSpec(retention_s=2 * 86_400))
    outcomes = []
    for number, mutations in enumerate(steps):
        outcomes.append(row.step(mutations))
        row.commit(number + 1, {"t:0": number})
        progress = SourceProgress.of_file(max(mutation.time for mutation in mutations))
        outcome = ahead.process([Record.of(number, mutations, progress=progress)])
        if number:
            ahead.write()
            assert ahead.next_offset == number
        ahead.prepare(number + 1, {"t:0": number})
        assert (outcome.scores, outcome.alerts, outcome.forgotten) == (
            outcomes[-1].scores, outcomes[-1].alerts, outcomes[-1].forgotten
        )  # fmt: skip
        if number == len(steps) - 2:
            before = _rows(row)
    ahead.close()  # the last step is prepared and not written
    ahead = Shard.open(tmp_path / "ahead", ARTIFACT, GraphSpec(retention_s=2 * 86_400))
    assert (ahead.next_offset, ahead.marks) == (len(steps) - 1, {"t:0": len(steps) - 2})
    assert _rows(ahead) == before
    progress = SourceProgress.of_file(max(mutation.time for mutation in steps[-1]))
    last = Record.of(len(steps) - 1, steps[-1], progress=progress)
    assert ahead.process([last]).scores == outcomes[-1].scores
    ahead.commit(len(steps), {"t:0": len(steps) - 1})
    assert _rows(ahead) == _rows(row)
    for shard in (ahead, row):
        shard.close()


def _rows(shard: Shard) -> dict[str, list[tuple[bytes, bytes]]]:
    """Return everything that a shard has on the disk."""
    return {family: list(shard.graph.store.rows(family)) for family in FAMILIES}


def test_forget(tmp_path: Path) -> None:
    """A forgotten user is withdrawn and no longer scored, and published again after a new event."""
    shard = Shard.open(tmp_path, ARTIFACT, GraphSpec())
    shard.step(_log(events=200))
    shard.commit()
    outcome = shard.step([Mutation(Kind.FORGET, at(DAY), "u3")])
    shard.commit()
    assert outcome.forgotten == ["u3"]
    assert "u3" not in [score.user for score in outcome.scores]
    assert shard.reads.user("u3") is None
    assert "u3" not in shard.reads.scores()[0]
    outcome = shard.step([follow(2 * DAY, "u3", "u4")])
    assert "u3" in [score.user for score in outcome.scores]
    shard.close()


def test_top_and_user(tmp_path: Path) -> None:
    """The top list is sorted by reach and agrees with each user's own entry."""
    shard = Shard.open(tmp_path, ARTIFACT, GraphSpec())
    assert shard.reads.top(5) == []
    shard.step(_log(events=200))
    top = shard.reads.top(5)
    assert [entry["reach"] for entry in top] == sorted((entry["reach"] for entry in top), reverse=True)
    described = shard.reads.user(top[0]["user"])
    assert described is not None
    assert described["reach"] == top[0]["reach"] == max(shard.reads.scores()[1])
    assert shard.reads.user("unknown") is None
    shard.close()
