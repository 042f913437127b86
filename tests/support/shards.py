"""Compare the states that workers left, with any number of shards, with an undisturbed single shard."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from model.artifact import Artifact
from streams.messages.events import TOPIC_OF, mutations
from streams.offline.replay import cluster, replay
from streams.settings.settings import Settings
from streams.shard.graph_view import graph_spec
from streams.shard.shard import Shard
from streams.worker.data_dir import state_folder
from tests.chaos.judge import POINTS, TOLERANCE, records

BATCH = 4_096
NOW_MS = 1_700_000_000_000

Scores = dict[str, tuple[float, float, int]]
"""Reach, percentile and as-of time (µs) by user."""
Nodes = dict[Any, Any]


def _scores(score_columns: tuple[Any, ...]) -> Scores:
    users, *columns = score_columns
    return dict(zip(users, zip(*(column.tolist() for column in columns), strict=True), strict=True))


def undisturbed(settings: Settings, events: list[dict[str, Any]], folder: Path) -> tuple[Scores, Nodes]:
    """Return the scores and nodes of a single shard that processed the same events, without Kafka."""
    artifact = Artifact.default()
    spec = graph_spec(artifact.config, retention_s=settings.retention_s, lateness_s=settings.lateness_s)
    every = [one for event in events for one in mutations(json.dumps(event).encode(), TOPIC_OF[event["type"]], NOW_MS)]
    with cluster(artifact, spec, folder, 1) as calm:
        replay(calm, every, BATCH)
        return _scores(calm.scores()), records(calm.shards[0].graph.snapshot())


@contextmanager
def newest(settings: Settings, folders: Iterable[Path]) -> Iterator[list[Shard]]:
    """Open the newest state of each shard among some workers' folders, for reading.

    Two folders may have the same position in the log: one of a worker that had the shard before, and that of its owner,
    who has received halos since. That which was written last is the owner's.
    """
    artifact, folders = Artifact.default(), list(folders)
    spec = graph_spec(artifact.config, retention_s=settings.retention_s, lateness_s=settings.lateness_s)
    with ExitStack() as stack:
        found = []
        for number in range(settings.shards):
            own = replace(spec, shards=settings.shards, shard=number)
            states: list[tuple[int, int, Shard]] = []
            for path in (state_folder(folder, number) for folder in folders):
                if path.exists():
                    written = max(file.stat().st_mtime_ns for file in path.rglob("*"))
                    state = Shard.open(path, artifact, own, read_only=True)
                    stack.callback(state.close)
                    states.append((state.next_offset, written, state))
            assert states, f"no folder has a state of shard {number}"
            found.append(max(states, key=itemgetter(0, 1))[2])
        # Counts of other shards, which percentiles need, are exchanged by halos and not stored.
        for number, shard in enumerate(found):
            sketch = shard.publisher.percentiles.sketch(always=True)
            for other in found:
                if other is not shard and sketch is not None:
                    other.publisher.percentiles.merge(number, sketch)
        yield found


def check_same(settings: Settings, folders: Iterable[Path], expected: tuple[Scores, Nodes]) -> None:
    """Check that the states together hold the same nodes, bit-equal, and the same scores within tolerances."""
    scores: Scores = {}
    nodes: Nodes = {}
    with newest(settings, folders) as shards:
        for number, shard in enumerate(shards):
            own = records(shard.graph.snapshot(), settings.shards, number)
            assert not nodes.keys() & own.keys()
            nodes |= own
            scores |= _scores(shard.reads.scores())
    assert nodes.keys() == expected[1].keys()
    differ = [key for key in nodes if nodes[key] != expected[1][key]]
    assert not differ, f"{len(differ)} nodes differ, such as {differ[0]}: {nodes[differ[0]]} {expected[1][differ[0]]}"
    assert scores.keys() == expected[0].keys()
    pairs = {user: (score, expected[0][user]) for user, score in scores.items()}
    others = [(user, *pair) for user, pair in pairs.items() if not _alike(*pair)]
    assert not others, f"{len(others)} of {len(scores)} scores differ, such as {others[0]}"


def _alike(one: tuple[float, float, int], other: tuple[float, float, int]) -> bool:
    """Whether two scores (reach, percentile, as_of) are equal within tolerances."""
    (reach, percentile, as_of), (reach_, percentile_, as_of_) = one, other
    near = abs(reach - reach_) <= TOLERANCE * max(1.0, reach_) and abs(percentile - percentile_) <= POINTS
    return near and as_of == as_of_
