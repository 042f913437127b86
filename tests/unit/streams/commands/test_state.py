"""`groundswell state`: inspect, verify, checkpoint and restore."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphstate.memory.node_tables import FOLLOWERS
from graphstate.queries import state_verification
from graphstate.state import GraphState
from graphstate.types import GraphSpec, source_hash
from model.artifact import Artifact
from streams import cli
from streams.messages.events import TOPIC_OF, mutations
from streams.offline.replay import cluster, replay
from streams.settings.settings import PREFIX
from streams.worker.data_dir import lock_data_dir
from tests.support.graphs import FollowShard
from tests.support.histories import NOW_S, history

SPEC = GraphSpec()
DAY_US = 86_400_000_000


class State:
    """`groundswell state` over a data folder with one stopped shard."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.datadir = folder / "data"
        self.shard = self.datadir / "shard-0"
        self.kept = folder / "kept"
        self.capsys = capsys
        monkeypatch.setenv(PREFIX + "DATADIR", str(self.datadir))
        monkeypatch.setenv(PREFIX + "CHECKPOINTS", f"file://{self.kept}")
        self.datadir.mkdir()
        shard = FollowShard(self.shard)
        shard.work(30)
        shard.close()

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, output, errors."""
        code = cli.run(["state", *arguments])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run a command that exits with that code; returns its output as JSON."""
        got, out, err = self.run(*arguments, "--json")
        assert (got, err) == (code, "")
        return json.loads(out)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> State:
    """See State."""
    return State(tmp_path, monkeypatch, capsys)


def test_inspect(state: State) -> None:
    """Format, offsets, counts and sizes, of a state that is open as well."""
    (row,) = state.json("inspect")
    assert (row["shard"], row["next_offset"], row["model"], row["users"], row["live_users"]) == (0, 30, "abc", 31, 31)
    assert row["edges"]["follows"] == 30
    assert row["contents"] == row["edges"]["shared"] == 0
    assert row["spec"]["window"] == SPEC.window
    assert row["bytes"] > 1_000
    shard = FollowShard(state.shard)
    try:
        assert state.json("inspect", "--no-count")[0]["next_offset"] == 30
        assert state.json("inspect")[0]["users"] == 31
    finally:
        shard.close()
    code, out, _ = state.run("inspect")
    assert code == 0
    assert out.splitlines()[0].split()[:3] == ["shard", "format", "shards"]
    assert state.run("inspect", "--shard", "3")[2].endswith(" has no state of shard 3; check GROUNDSWELL_DATADIR\n")


def test_verify(state: State) -> None:
    """A correct state has no findings; a flipped bit in a table and a wrong counter are found."""
    assert state.json("verify") == [{"shard": 0, "ok": True, "wrong": []}]
    graph = GraphState.open(state.shard, SPEC)
    graph.users.counts[graph.users.index["u1"], 3] += 1
    graph.mark_dirty(0, graph.users.index["u1"])
    graph.commit()
    graph.store.checkpoint(state.datadir / "whole")  # flushes
    graph.close()
    (found,) = state.json("verify", code=1)
    assert found["wrong"] == ["followers: 1 nodes disagree with their follows edges (u1 counts 4, has 3)"]
    table = max(state.shard.glob("*.sst"), key=lambda path: path.stat().st_size)
    value = bytearray(table.read_bytes())
    value[10] ^= 1  # in the first block of data
    table.unlink()
    table.write_bytes(value)
    (found,) = state.json("verify", code=1)
    assert "Corruption" in found["wrong"][0]
    assert state.run("verify")[1].startswith("WRONG  shard 0\n       family ")


@pytest.mark.slow
def test_verify_on_several_shards(tmp_path: Path) -> None:
    """Mirrored nodes and evicted contents are no findings; wrong counters are."""
    spec = replace(SPEC, retention_s=86_400, lateness_s=3_600)
    events = history(random.Random(3), 3_000, links=True)
    every = [
        mutation
        for event in events
        for mutation in mutations(json.dumps(event).encode(), TOPIC_OF[event["type"]], NOW_S * 1_000)
    ]
    with cluster(Artifact.default(), spec, tmp_path, 3) as running:
        replay(running, every)
    folder = tmp_path / "shard-1"
    assert [list(state_verification.verify(tmp_path / f"shard-{shard}")) for shard in range(3)] == [[], [], []]
    assert state_verification.inspect(folder)["shards"] == 3
    graph = GraphState.open(folder, replace(spec, shards=3, shard=1))
    users = graph.users
    owned = [row for name, row in users.index.items() if source_hash(name) % 3 == 1]
    for row in owned[:5]:
        users.counts[row, FOLLOWERS] += 1
        graph.mark_dirty(0, row)
    graph.commit()
    graph.close()
    assert [line.partition(" nodes")[0] for line in state_verification.verify(folder)] == ["followers: 5"]


def test_checkpoint_and_restore(state: State) -> None:
    """A checkpoint of a lost state is restored; an existing state is replaced only with --force."""
    (made,) = state.json("checkpoint")
    assert (made["checkpoint"], made["next_offset"]) == ("00000001-30", 30)
    (row,) = state.json("checkpoints")
    assert (row["checkpoint"], row["next_offset"], row["wrong"]) == ("00000001-30", 30, "")
    code, _, err = state.run("restore")
    assert (code, "--force" in err) == (1, True)
    shutil.rmtree(state.shard)
    (row,) = state.json("restore")
    assert (row["checkpoint"], row["next_offset"]) == ("00000001-30", 30)
    shard = FollowShard(state.shard)
    shard.work()
    shard.close()
    assert state.json("checkpoint")[0]["checkpoint"] == "00000002-50"
    (row,) = state.json("restore", "--force", "--at", "00000001-30")
    assert row["next_offset"] == 30
    assert state.json("inspect")[0]["next_offset"] == 30
    assert state.run("restore", "--force", "--at", "7-7")[2].startswith("groundswell: there is no checkpoint 7-7 in ")
    assert state.json("inspect")[0]["next_offset"] == 30


def test_a_running_worker_is_left_alone(state: State) -> None:
    """A state in use by a worker or another process is neither checkpointed nor replaced."""
    state.json("checkpoint")
    with lock_data_dir(state.datadir):
        code, _, err = state.run("checkpoint")
        assert (code, "in use by another worker" in err, "makes a checkpoint every 600 s" in err) == (1, True, True)
        assert state.run("restore", "--force")[::2] == (1, err.partition("; with GROUNDSWELL_CHECKPOINTS")[0] + "\n")
        assert state.json("inspect")[0]["next_offset"] == 30
    shard = FollowShard(state.shard)
    try:
        for command in (["checkpoint"], ["restore", "--force"]):
            code, _, err = state.run(*command)
            assert (code, "open in another process" in err, len(err.splitlines())) == (1, True, 1)
        shard.work()
    finally:
        shard.close()
    assert state.json("inspect")[0]["next_offset"] == 50
    assert list(state.datadir.glob(".*")) == []


def test_nothing_there(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """No address, no checkpoints, no state: one line each; wrong usage is 2."""
    assert state.run("checkpoints")[:2] == (0, f"no checkpoints in file://{state.kept}\n")
    shutil.rmtree(state.shard)
    assert state.run("restore")[2].startswith("groundswell: there is no checkpoint of shard 0 in ")
    assert state.run("inspect")[2].endswith(" has no state of a shard; check GROUNDSWELL_DATADIR\n")
    assert state.run("restore", "--shard", "x")[0] == 2
    monkeypatch.setenv(PREFIX + "CHECKPOINTS", "")
    assert state.run("checkpoints")[2].startswith("groundswell: GROUNDSWELL_CHECKPOINTS is empty")
