"""`groundswell state find`: a user is found in rows, files, checkpoints and messages, and nowhere after a forget."""

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
from streams.messages.packs.mutation_packs import Packer
from streams.operations import personal_data_search
from streams.operations.personal_data_search import (
    REMOVED,
    FileFindings,
    search_checkpoints,
    search_files,
    search_shards,
)
from streams.settings.settings import PREFIX, Settings
from tests.support.graphs import follow, forget, share

PERSON = "person-who-leaves"
SPEC = GraphSpec()


def state(datadir: Path, *steps: list[Mutation]) -> None:
    """Write the state of shard 0 after some steps."""
    graph = GraphState.open(datadir / "shard-0", SPEC)
    for number, step in enumerate(steps):
        graph.apply(step)
        graph.commit({b"next": str(number).encode(), b"model": b"abc"})
        graph.store.rewrite()
    graph.close()


@pytest.fixture
def here(tmp_path: Path, offline_settings: Settings) -> Settings:
    """Return settings with a folder for checkpoints."""
    return offline_settings.model_copy(update={"checkpoints": f"file://{tmp_path / 'kept'}"})


def test_rows_and_files(here: Settings) -> None:
    """A user is named and has edges; after a forget a hash and its time are left; longer ids are counted apart."""
    datadir = here.datadir
    state(datadir, [follow(1, PERSON, "b"), share(2, PERSON, "x"), follow(3, f"{PERSON}-too", "b")])
    (before,) = search_shards(here, PERSON)
    assert (before.named, before.others, before.forgotten_s, before.owner) == (True, 1, None, True)
    assert before.edges == 2
    assert sum(search_files(datadir, PERSON).found.values()) == 2
    state(datadir, [forget(4, PERSON)])
    (after,) = search_shards(here, PERSON)
    assert (after.named, after.edges, after.others) == (False, 0, 1)
    assert after.forgotten_s == forget(4, PERSON).time / 1e6
    assert sum(search_files(datadir, PERSON).found.values()) == 1
    assert search_shards(here, "nobody")[0] == personal_data_search.ShardFindings(0, owner=True)
    assert not search_files(datadir, "nobody").found


def test_a_compressed_file_of_an_earlier_release_is_reported(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search may miss an id in compressed nodes, so these files are listed."""
    options = storing.options

    def compressed(*arguments: Any) -> Options:
        changed = options(*arguments)
        changed.set_compression_type(DBCompressionType.snappy())
        return changed

    monkeypatch.setattr(storing, "options", compressed)
    state(here.datadir, [follow(1, f"{PERSON}-{number:04d}", "b") for number in range(2_000)])
    before = search_files(here.datadir, f"{PERSON}-1234")
    assert not before.found, "the file is not compressed, so this test proves nothing"
    assert len(before.compressed) == 1
    monkeypatch.undo()
    state(here.datadir, [])
    after = search_files(here.datadir, f"{PERSON}-1234")
    assert after.found
    assert not after.compressed


def test_an_id_across_two_chunks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that begins in one chunk and ends in the next is found once, wherever it lies."""
    monkeypatch.setattr(personal_data_search, "CHUNK_BYTES", 8)
    for position in range(40):
        findings = FileFindings()
        findings.search(BytesIO(b"." * position + b"abcde" + b"." * 5), "some.file", b"abcde")
        assert findings.found == {"some.file": 1}
        assert findings.size == position + 10
    single_byte = FileFindings()
    single_byte.search(BytesIO(b"abcabcabc"), "some.file", b"a")
    assert single_byte.found == {"some.file": 3}


def test_checkpoints_from_before_a_forget_are_listed(
    here: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint from before the forget holds the id, a later one does not; in JSON and as text."""
    monkeypatch.setenv(PREFIX + "DATADIR", str(here.datadir))
    monkeypatch.setenv(PREFIX + "CHECKPOINTS", here.checkpoints)
    state(here.datadir, [follow(1, PERSON, "b")])
    assert cli.run(["state", "checkpoint"]) == 0
    state(here.datadir, [forget(4, PERSON)])
    assert cli.run(["state", "checkpoint"]) == 0
    capsys.readouterr()
    assert cli.run(["state", "find", PERSON, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [checkpoint["count"] for checkpoint in printed["checkpoints"]] == [0, 1]
    assert printed["files"]["found"] == {}
    assert printed["topics"] is None
    assert cli.run(["state", "find", PERSON]) == 0
    text = capsys.readouterr().out
    assert "\n0 times in the " in text
    assert "\n1 of 2 checkpoints hold it\n" in text
    kept = Path(here.checkpoints.removeprefix("file://"))
    min(kept.rglob("manifests/*")).unlink()
    local = here.model_copy(update={"prefix": ""})
    counts = [(findings.checkpoint != REMOVED, findings.count) for findings in search_checkpoints(local, PERSON)]
    assert counts == [(True, 0), (False, 1)]


def test_a_damaged_checkpoint_is_reported(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that cannot be read has an error, and not a count of 0 alone."""
    monkeypatch.setenv(PREFIX + "DATADIR", str(here.datadir))
    monkeypatch.setenv(PREFIX + "CHECKPOINTS", here.checkpoints)
    state(here.datadir, [follow(1, PERSON, "b")])
    assert cli.run(["state", "checkpoint"]) == 0
    local = here.model_copy(update={"prefix": ""})
    assert [findings.count for findings in search_checkpoints(local, PERSON)] == [1]
    for path in Path(here.checkpoints.removeprefix("file://")).rglob("blobs/*"):
        path.unlink()
    (findings,) = search_checkpoints(local, PERSON)
    assert findings.wrong


def packed(*mutations: Mutation) -> bytes:
    """Return one message of the mutations topic."""
    packer = Packer()
    packer.add_message("in:0", 0, 1, 10, list(mutations))
    (value,) = packer.finish()
    return value


def halo(**fields: Any) -> bytes:
    """Return one message of the halos topic."""
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
    ("halos", None, halo(nodes=[Node(0, PERSON, b"", b"")]), True),
    ("halos", None, halo(wants=[Want(0, PERSON, b"")]), True),
    ("halos", None, halo(drops=[(0, PERSON)]), True),
    ("halos", None, halo(nodes=[Node(1, PERSON, b"", b"")]), False),
    ("score", PERSON, None, True),
    ("score", f"{PERSON}-too", {"user": f"{PERSON}-too"}, False),
    ("alert", PERSON, {"user": PERSON}, True),
    ("alert", "b", {"user": "b", "sharers": ["c", PERSON]}, True),
    ("alert", "b", {"user": "b", "content": PERSON}, False),
]


@pytest.mark.parametrize(("topic", "key", "value", "expected"), MESSAGES)
def test_messages_that_name_a_user(
    offline_settings: Settings, topic: str, key: str | None, value: Any, expected: bool
) -> None:
    """The id counts in every field that holds a user, also escaped; not inside longer ids and not as a content."""
    topics = Topics(offline_settings)
    raw = json.dumps(value).encode() if isinstance(value, dict) else value
    name = getattr(topics, topic).name
    record = SimpleNamespace(topic=name, key=key and key.encode(), value=raw, timestamp=T * 1_000)
    assert personal_data_search._names_user(topics, record, PERSON, PERSON.encode()) is expected
    letter = SimpleNamespace(topic=f"{name}.dlq", key=None, value=PERSON.encode(), timestamp=T * 1_000)
    assert personal_data_search._names_user(topics, letter, PERSON, PERSON.encode())
    assert asdict(personal_data_search.TopicFindings(name))["naming"] == 0
