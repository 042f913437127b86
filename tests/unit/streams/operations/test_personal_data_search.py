"""`groundswell state find`: what it says of rows, files, checkpoints and messages, and that it can say no."""

from __future__ import annotations

import json
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rocksdict import DBCompressionType, Options

from graphstate.state import GraphState
from graphstate.storage import store as storing
from graphstate.types import Fact, GraphSpec, Kind, Mutation, source_hash
from streams import cli
from streams.kafka.topics import Topics
from streams.messages.halos import Halo, Node, Want
from streams.messages.halos import encode as encode_halo
from streams.messages.mutation_packs import Packer
from streams.operations import personal_data_search
from streams.operations.personal_data_search import REMOVED, InFiles, in_checkpoints, in_files, in_shards
from streams.settings.settings import PREFIX, Settings
from tests.support.graphs import follow, forget, share

PERSON = "person-who-leaves"
SPEC = GraphSpec()


def state(datadir: Path, *steps: list[Mutation]) -> None:
    """A state in shard 0 after some steps."""
    graph = GraphState.open(datadir / "shard-0", SPEC)
    for number, step in enumerate(steps):
        graph.apply(step)
        graph.commit({b"next": str(number).encode(), b"model": b"abc"})
        graph.store.rewrite()
    graph.close()


@pytest.fixture
def here(tmp_path: Path, offline_settings: Settings) -> Settings:
    """Settings with a folder for checkpoints."""
    return offline_settings.model_copy(update={"checkpoints": f"file://{tmp_path / 'kept'}"})


def test_rows_and_files(here: Settings) -> None:
    """A person is named with edges; after a forget there is a trace and its time, and longer ids are told apart."""
    datadir = here.datadir
    state(datadir, [follow(1, PERSON, "b"), share(2, PERSON, "x"), follow(3, f"{PERSON}-too", "b")])
    (before,) = in_shards(here, PERSON)
    assert (before.named, before.others, before.forgotten_s, before.owner) == (True, 1, None, True)
    assert before.edges == 2
    assert sum(in_files(datadir, PERSON).found.values()) == 2
    state(datadir, [forget(4, PERSON)])
    (after,) = in_shards(here, PERSON)
    assert (after.named, after.edges, after.others) == (False, 0, 1)
    assert after.forgotten_s == forget(4, PERSON).time / 1e6
    assert sum(in_files(datadir, PERSON).found.values()) == 1
    assert in_shards(here, "nobody")[0] == personal_data_search.InShard(0, owner=True)
    assert not in_files(datadir, "nobody").found


def test_a_file_of_an_earlier_release_is_not_taken_for_clean(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nodes are compressed the search may miss somebody, and says so."""
    options = storing.options

    def as_before(*arguments: Any) -> Options:
        made = options(*arguments)
        made.set_compression_type(DBCompressionType.snappy())
        return made

    monkeypatch.setattr(storing, "options", as_before)
    state(here.datadir, [follow(1, f"{PERSON}-{number:04d}", "b") for number in range(2_000)])
    found = in_files(here.datadir, f"{PERSON}-1234")
    assert not found.found, "they are not compressed: this proves nothing"
    assert len(found.compressed) == 1
    monkeypatch.undo()
    state(here.datadir, [])
    found = in_files(here.datadir, f"{PERSON}-1234")
    assert found.found
    assert not found.compressed


def test_the_search_sees_what_lies_between_two_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that begins in one chunk and ends in the next is found once, wherever it lies."""
    monkeypatch.setattr(personal_data_search, "CHUNK_BYTES", 8)
    for at in range(40):
        found = InFiles()
        found.search(BytesIO(b"." * at + b"abcde" + b"." * 5), "some.file", b"abcde")
        assert found.found == {"some.file": 1}
        assert found.size == at + 10
    alone = InFiles()
    alone.search(BytesIO(b"abcabcabc"), "some.file", b"a")
    assert alone.found == {"some.file": 3}


def test_old_checkpoints_are_told(
    here: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint of before still holds the person, one of after does not; `find` prints both forms."""
    monkeypatch.setenv(PREFIX + "DATADIR", str(here.datadir))
    monkeypatch.setenv(PREFIX + "CHECKPOINTS", here.checkpoints)
    state(here.datadir, [follow(1, PERSON, "b")])
    assert cli.run(["state", "checkpoint"]) == 0
    state(here.datadir, [forget(4, PERSON)])
    assert cli.run(["state", "checkpoint"]) == 0
    capsys.readouterr()
    assert cli.run(["state", "find", PERSON, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["count"] for one in found["checkpoints"]] == [0, 1]
    assert found["files"]["found"] == {}
    assert found["topics"] is None
    assert cli.run(["state", "find", PERSON]) == 0
    text = capsys.readouterr().out
    assert "\n0 times in the " in text
    assert "\n1 of 2 checkpoints hold it\n" in text
    kept = Path(here.checkpoints.removeprefix("file://"))
    min(kept.rglob("manifests/*")).unlink()
    local = here.model_copy(update={"prefix": ""})
    assert [(one.checkpoint != REMOVED, one.count) for one in in_checkpoints(local, PERSON)] == [(True, 0), (False, 1)]


def test_a_checkpoint_that_is_damaged_is_no_proof(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read is said to be so."""
    monkeypatch.setenv(PREFIX + "DATADIR", str(here.datadir))
    monkeypatch.setenv(PREFIX + "CHECKPOINTS", here.checkpoints)
    state(here.datadir, [follow(1, PERSON, "b")])
    assert cli.run(["state", "checkpoint"]) == 0
    local = here.model_copy(update={"prefix": ""})
    assert [one.count for one in in_checkpoints(local, PERSON)] == [1]
    for path in Path(here.checkpoints.removeprefix("file://")).rglob("blobs/*"):
        path.unlink()
    (found,) = in_checkpoints(local, PERSON)
    assert found.wrong


def packed(*some: Mutation) -> bytes:
    """One message of the mutations topic."""
    packer = Packer()
    packer.add("in:0", 0, 1, 10, list(some))
    (value,) = packer.finish()
    return value


def told(**fields: Any) -> bytes:
    """One message of the halos topic."""
    return encode_halo(Halo(1, 0, 0, "abc", **fields))


T, ESCAPED = 1_700_000_000, PERSON.replace("p", "\\u0070")
MESSAGES = [
    ("share", None, {"type": "share", "time": T, "user": PERSON, "content": "x"}, True),
    ("share", None, {"type": "share", "time": T, "user": "b", "content": "x", "via": PERSON}, True),
    ("share", None, {"type": "share", "time": T, "user": f"{PERSON}-too", "content": "x"}, False),
    ("share", None, {"type": "share", "time": T, "user": "b", "content": PERSON}, False),
    ("share", None, f'{{"type": "share", "time": {T}, "user": "{ESCAPED}", "content": "x"}}'.encode(), True),
    ("share", None, f'{{"type": "share", "user": "{PERSON}"}}'.encode(), True),
    ("share", None, b'{"type": "\\u0070"}', False),
    ("follow", None, {"type": "follow", "time": T, "user": "b", "target": PERSON}, True),
    ("create", None, {"type": "create", "time": T, "user": "b", "content": "x", "reply_to": PERSON}, False),
    ("mutations", None, packed(Mutation(Kind.FORGET, 1, PERSON)), True),
    ("mutations", None, packed(Mutation(Kind.SHARE, 1, "b", "x", PERSON)), True),
    ("mutations", None, packed(Mutation(Fact.RECEIVED, 1, "b", PERSON, "x")), True),
    ("mutations", None, packed(Mutation(Kind.CREATE, 1, "b", "x", PERSON)), False),
    ("mutations", None, packed(Mutation(Fact.TIED, 0, "", "", "ab", source_hash(PERSON))), False),
    ("halos", None, told(nodes=[Node(0, PERSON, b"", b"")]), True),
    ("halos", None, told(wants=[Want(0, PERSON, b"")]), True),
    ("halos", None, told(drops=[(0, PERSON)]), True),
    ("halos", None, told(nodes=[Node(1, PERSON, b"", b"")]), False),
    ("score", PERSON, None, True),
    ("score", f"{PERSON}-too", {"user": f"{PERSON}-too"}, False),
    ("alert", PERSON, {"user": PERSON}, True),
]


@pytest.mark.parametrize(("topic", "key", "value", "expected"), MESSAGES)
def test_messages_that_name_a_person(
    offline_settings: Settings, topic: str, key: str | None, value: Any, expected: bool
) -> None:
    """As a user, in any field that means one, escaped or not; not as a part of another id or as a content."""
    topics = Topics(offline_settings)
    raw = json.dumps(value).encode() if isinstance(value, dict) else value
    name = getattr(topics, topic).name
    record = SimpleNamespace(topic=name, key=key and key.encode(), value=raw, timestamp=T * 1_000)
    assert personal_data_search._naming(topics, record, PERSON, PERSON.encode()) is expected
    letter = SimpleNamespace(topic=f"{name}.dlq", key=None, value=PERSON.encode(), timestamp=T * 1_000)
    assert personal_data_search._naming(topics, letter, PERSON, PERSON.encode())
    assert asdict(personal_data_search.InTopic(name))["naming"] == 0
