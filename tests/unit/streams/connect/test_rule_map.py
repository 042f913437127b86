"""Mistakes in a mapping file: each is one line with the file, the rule, the key and the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streams import cli
from streams.connect.memory import Memory
from streams.connect.rule_map import RuleMap
from streams.errors import InputError

FOLLOW = '[[event]]\ntype = "follow"\ntime = "at"\nuser = "who"\ntarget = "whom"\n'


def written(tmp_path: Path, text: str) -> RuleMap:
    """The mapping of a text."""
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    return RuleMap(path, Memory())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = ", r"own.toml: cannot be read as TOML: .* \(at "),
        ("", r"own.toml: has no \[\[event\]\]"),
        ('kind = "x"\n' + FOLLOW, "own.toml: unknown key kind; outside of"),
        ('[source]\nat = "x"\n' + FOLLOW, r"own.toml: \[source\] has no key at"),
        (FOLLOW + 'tagret = "x"', "own.toml, event 1: unknown key tagret; the keys are type, when"),
        (FOLLOW + 'content = "x"', "event 1: a follow has no content; leave it out"),
        (FOLLOW.replace('target = "whom"', ""), "event 1: a follow needs target; give the path"),
        (FOLLOW.replace("follow", "like"), "event 1: type = 'like' is none of follow, unfollow"),
        (FOLLOW + 'unit = "h"', "event 1: unit = 'h' is none of s, ms, us, ns"),
        (FOLLOW + 'when = "x"', "event 1: when: give a table"),
        (FOLLOW + "when.a = []", "event 1: when: a = .* is no condition"),
        (FOLLOW + 'key = "a..b"', "event 1: key: 'a..b' is no path"),
        (FOLLOW + "[[event]]\n", "event 2: has no type; give one of"),
        ('[[event]]\nundo = "id"\n', "event 1: an undo needs time"),
        (
            '[[event]]\ntype = "share"\ntime = "at"\nuser = "a"\ncontent = "b"\nauthor = "c"\n',
            "event 1: a share has both author and created",
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, problem: str) -> None:
    """Each mistake is found when the file is read."""
    with pytest.raises(InputError, match=problem):
        written(tmp_path, text)


def test_units_and_optional_fields(tmp_path: Path) -> None:
    """Times are converted exactly, an optional field that is absent is left out, and topics are at most eight."""
    text = 'unit = "ms"\ntime = "at"\n[[event]]\ntype = "create"\nuser = "u"\ncontent = "c"\nreply_to = "r"\n'
    text += 'topics = "tags[]"\n[[event]]\nwhen.by = "*"\ntype = "share"\nuser = "u"\n'
    text += 'content = "c"\nauthor = "by"\ncreated = "made"\n'
    mapping = written(tmp_path, text)
    base = {"u": 1, "c": "p", "tags": list("abcdefghij")}
    ((row, _),) = mapping({**base, "at": 1_772_366_400_123})
    assert row == {"type": "create", "time": 1_772_366_400.123, "user": 1, "content": "p", "topics": list("abcdefgh")}
    ((row, _),) = mapping({**base, "at": "1772366400000"})
    assert row["time"] == 1_772_366_400
    _, (share, mutations) = mapping({**base, "at": "2026-03-01T12:00:00Z", "by": "bo", "made": 1_772_366_400_000})
    assert (share["created"], len(mutations)) == (1_772_366_400, 2)


def test_a_file_has_no_time_of_arrival(tmp_path: Path) -> None:
    """`@time` is the arrival where there is one; for a file the line names the remedy."""
    mapping = written(tmp_path, FOLLOW.replace('"at"', '["at", "@time"]'))
    record = {"who": "a", "whom": "b"}
    ((row, _),) = mapping(record, None, 5.0)
    assert row["time"] == 5.0
    with pytest.raises(Exception, match="field time: the record has no at or @time; files have no time of arrival"):
        mapping(record)
    with pytest.raises(Exception, match="the record is no JSON object"):
        mapping(3)


def test_an_unknown_undo_is_counted_or_replaced(tmp_path: Path) -> None:
    """Without a type it is counted; with one that event is made instead."""
    mapping = written(tmp_path, 'time = "at"\n[[event]]\nundo = "id"\n')
    assert mapping({"at": 1, "id": "x"}) == []
    assert (mapping.unknown, mapping.ignored) == (1, 1)
    text = 'time = "at"\n[[event]]\nundo = "id"\ntype = "delete"\nuser = "u"\ncontent = "id"\n'
    ((row, _),) = written(tmp_path, text)({"at": 1, "id": "x", "u": "a"})
    assert row == {"type": "delete", "time": 1, "user": "a", "content": "x"}


def test_rules_that_no_record_matches_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt condition, and a unit that is too fine, are seen in `produce --check`."""
    path, records = tmp_path / "m.toml", tmp_path / "records.jsonl"
    rules = [("like", "share"), ("psot", "create")]
    text = "".join(
        f'[[event]]\nwhen = {{ kind = "{kind}" }}\ntype = "{made}"\ncontent = "of"\n' for kind, made in rules
    )
    path.write_text('unit = "us"\ntime = "at"\nuser = "by"\n' + text, encoding="utf-8")
    at = 1_772_582_400_123
    lines = [{"kind": kind, "at": at, "by": "ana", "of": "c"} for kind in ("like", "post")]
    records.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert cli.run(["produce", "--check", str(records), "--map", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "no record matches event 2 (create): compare the conditions of its when with a record" in printed
    assert "all times are before 2000: are they in the unit that is set?" in printed
