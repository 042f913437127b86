"""Base states: loaded once into a folder of their own, copied for every run."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

from graphstate.state import FORMAT
from graphstate.types import GraphSpec
from model.artifact import Artifact
from streams.graphview import graph_spec
from streams.records import Record
from streams.shard import Shard
from tests.bench.workloads import Workload

Say = Callable[[str], None]
_ONE_STEP = 100_000


def spec_of(artifact: Artifact) -> GraphSpec:
    """The graph that an artifact needs, with everything kept."""
    return graph_spec(artifact.config, retention_s=0, lateness_s=7 * 86_400)


def base_state(workload: Workload, artifact: Artifact, folder: Path, say: Say) -> Path:
    """The folder of a workload's loaded base, made if it is missing; nobody may open it, only copy it.

    Its name is a hash of the base's events, the format of the state and what the artifact asks of the graph.
    """
    asked = f"{FORMAT} {sorted(asdict(spec_of(artifact)).items())}".encode()
    path = folder / f"{workload.name}-{blake2b(workload.key() + asked, digest_size=8).hexdigest()}"
    if path.is_dir():
        return path
    begin, done = time.monotonic(), 0
    part = path.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    shard = Shard.open(part, artifact, spec_of(artifact))
    for number, chunk in enumerate(workload.base()):
        shard.take([Record(number, chunk)], silent=True)
        shard.commit(number + 1)
        done += len(chunk)
    shard.close()
    part.rename(path)
    say(f"{workload.name}: a base of {done:,} events loaded in {time.monotonic() - begin:.0f} s, kept in {path.name}")
    return path


@contextmanager
def opened(workload: Workload, artifact: Artifact, folder: Path, say: Say) -> Iterator[Shard]:
    """A shard on a copy of the workload's base, past its prelude and one bulk pass."""
    base = base_state(workload, artifact, folder, say)
    with tempfile.TemporaryDirectory(prefix="groundswell-bench-") as own:
        path = Path(own) / "state"
        shutil.copytree(base, path)
        shard = Shard.open(path, artifact, spec_of(artifact))
        try:
            prelude = workload.prelude()
            for begin in range(0, len(prelude), _ONE_STEP):
                shard.take([Record(shard.next_offset, prelude[begin : begin + _ONE_STEP])], silent=True)
                shard.commit(shard.next_offset + 1)
            shard.take([Record(shard.next_offset, [])])
            shard.commit(shard.next_offset + 1)
            yield shard
        finally:
            shard.close()
