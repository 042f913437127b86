"""Compile the kernels of a worker and of an analyst by running both on a small generated stream, without Kafka.

NUMBA_CACHE_DIR=FOLDER python deploy/image/compile_kernels.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from graphstate.event_columns import EventColumns
from graphstate.types import Mutation
from model.artifact import Artifact
from model.simulation.stream import Simulation
from streams.analyst.graph.registers import Registers
from streams.analyst.graph.tables import NEVER
from streams.kafka import record_batch
from streams.kafka.partitioner import partitions_of
from streams.messages.column_decoder import Messages, decode
from streams.messages.events import TOPIC_OF
from streams.messages.packs.mutation_packs import Packer, Segment, unpack
from streams.offline.replay import cluster, replay
from streams.shard.graph_view import graph_spec
from streams.worker.inspection.score_history import ScoreHistory

DAYS, BATCH = 20, 200


def events() -> list[Mutation]:
    """Return the events of a small stream, decoded, packed and unpacked as a worker does."""
    now_ms = time.time_ns() // 1_000_000
    found: list[Mutation] = []
    rows = sorted(Simulation(200, 5).events(DAYS), key=lambda row: str(row["time"]))
    for number, row in enumerate(rows):
        messages = Messages(TOPIC_OF[row["type"]], [msgspec.json.encode(row)], np.array([now_ms]))
        packer, decoded = Packer(), decode([messages])
        packer.add(
            [Segment("t:0", np.array([number]), messages.accepted_ms, decoded.counts)], np.array([1]), decoded.columns
        )
        for pack in packer.finish():
            found += unpack(pack).columns.mutations()
    return found


def main() -> None:
    """Run a worker's shards, alone and three of them, and the registers of an analyst."""
    artifact, mutations = Artifact.default(), events()
    spec = graph_spec(artifact.config, retention_s=86_400, lateness_s=3_600)
    partitions_of([b""], 1)
    record_batch.warm_up()
    for shards in (1, 3):
        with TemporaryDirectory() as folder, cluster(artifact, spec, Path(folder), shards, live_posts=100) as opened:
            history = ScoreHistory()
            for shard in opened.shards:
                history.opened(shard)
            replay(opened, mutations, BATCH)
    registers = Registers(1, spec.retention_s, spec.lateness_s)
    registers.apply(0, EventColumns.of(mutations), NEVER)
    registers.take()
    sys.stdout.write(f"{len(mutations)} events: kernels compiled\n")


if __name__ == "__main__":
    main()
