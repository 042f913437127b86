"""The shipped mappings against an independent account of the same stream, and the counts of a mapping."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphstate.types import Mutation
from streams.connect import mapping as mappings
from streams.connect.mapping import RefusedRecord, load
from streams.connect.memory import Memory
from streams.errors import InputError
from streams.messages.files.event_files import row_mutations
from tests.support import foreign

NOW_US = (foreign.START_S + 400 * foreign.DAY_S) * 1_000_000


def test_every_source_is_shipped() -> None:
    """The samples cover every mapping that ships."""
    assert sorted(foreign.IDS) == mappings.shipped()


@pytest.mark.parametrize("source", sorted(foreign.IDS))
def test_a_shipped_mapping_makes_the_events_of_the_stream(source: str) -> None:
    """The records of each source become the events of the stream, no more and no less."""
    stream = foreign.actions(seed=3)
    mapping = load(source)
    made: set[Mutation] = set()
    for arrival_s, record in foreign.records(source, stream):
        made.update(one for _, mutations in mapping(record, NOW_US, arrival_s) for one in mutations)
    wanted = {one for row in foreign.expected(source, stream) for one in row_mutations(row, NOW_US)}
    assert len(wanted) > 300
    assert made == wanted
    assert (mapping.unknown, mapping.ignored > 50) == (0, True)


def test_a_refused_record_names_file_rule_field_and_remedy(tmp_path: Path) -> None:
    """The line has all that is needed to mend the mapping, and nothing of the record is remembered."""
    path = tmp_path / "own.toml"
    path.write_text(
        '[[event]]\ntype = "follow"\ntime = "at"\nuser = "who"\ntarget = "whom"\nkey = "id"\n'
        '[[event]]\nwhen.late = true\ntype = "share"\ntime = "at"\nuser = "who"\ncontent = "post"\n'
    )
    memory = Memory()
    mapping = load(str(path), memory)
    with pytest.raises(RefusedRecord) as refused:
        mapping({"at": 1, "who": "a", "whom": "b", "id": 7, "late": True})
    assert str(refused.value) == (
        "own.toml, event 2, field content: the record has no post; correct the path, or add a condition to when"
    )
    assert memory.undo("7", 2) is None
    with pytest.raises(RefusedRecord, match=r'own.toml, event 1: time .* looks like milliseconds.*: unit = "ms"'):
        mapping({"at": 1_772_366_400_000, "who": "a", "whom": "b"})
    with pytest.raises(RefusedRecord, match=r"own.toml, event 1: Expected .* at `\$.target`"):
        mapping({"at": 1, "who": "a", "whom": {}})


def test_a_mapping_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    """All records ignored means the wrong mapping; no records is fine."""
    mapping = load("github")
    mapping.conclude()
    mapping({"type": "PushEvent", "actor": {"login": "a"}, "created_at": "2026-03-01T12:00:00Z", "repo": {"name": "x"}})
    with pytest.raises(InputError, match=r"none of 1 records makes an event with github.py"):
        mapping.conclude()
    for name, problem in (("nothing", "one of the mappings that ship: bluesky"), (str(tmp_path / "a.toml"), "no such")):
        with pytest.raises(InputError, match=problem):
            load(name)
