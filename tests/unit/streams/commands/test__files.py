"""Invalid lines of event files: the first ends the command, unless --skip-bad skips and counts them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streams import cli
from streams.errors import InputError
from streams.messages.files import byte_streams, event_files, text_rows

GOOD = b'{"type":"follow","time":%d,"user":"a","target":"b"}'
BAD = {
    b"{": "json",
    b"nonsense, and more": "json",
    b'{"type":"follow","time":5,"user":"\xff","target":"b"}': "utf8",
    b"7": "schema",
    b'{"type":"poke","time":5,"user":"a"}': "type",
    b'{"type":"follow","time":"soon","user":"a","target":"b"}': "time",
    b'{"type":"follow","time":5,"user":"a"}': "field",
    b'{"type":"follow","time":5,"user":"","target":"b"}': "id",
    b'{"type":"follow","time":5,"user":{},"target":"b"}': "id",
    b'[{"type":"follow","time":5,"user":"a","target":"b"}, 7, []]': "schema",
    b"[" * 9_000: "nested",
    b'"' + b"x" * 5_000 + b'"': "size",
}


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a file of valid lines with one invalid line of each kind between them, the longest longer than a chunk."""
    monkeypatch.setattr(text_rows, "LINE_BYTES", 4_000)
    monkeypatch.setattr(byte_streams, "CHUNK_BYTES", 512)
    lines = [line for at, line in enumerate(BAD) for line in (GOOD % at, line if BAD[line] != "nested" else b"7")]
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join([*lines, GOOD % 99]))
    return path


def test_every_reason_is_counted_and_the_good_is_read(bad: Path) -> None:
    """Skipped rows do not affect others; the first ones are shown with control characters escaped."""
    shown: list[str] = []
    skipped = event_files.Skipped(None, show=shown.append)
    found = list(event_files.mutations(bad, skipped=skipped))
    assert [event.time // 1_000_000 for event in found] == [*range(10), 5, 10, 11, 99]
    wanted = {"json": 2, "utf8": 1, "schema": 4, "type": 1, "time": 1, "field": 1, "id": 2, "size": 1}
    assert dict(skipped.reasons) == wanted
    assert (skipped.bad, skipped.good) == (13, len(found))
    assert len(shown) == event_files.SHOWN + 1
    assert shown[1].startswith(f"skipped: {bad}, line 4: not JSON")
    assert shown[1].endswith(": nonsense, and more")
    assert all(line.isprintable() for line in shown)


def test_no_more_are_left_out_than_allowed(bad: Path) -> None:
    """The first line beyond the limit ends the command; the message has the counts and what to do."""
    for limit, message in (
        (0, r"bad.jsonl, line 2: not JSON: .*; --skip-bad$"),
        (2, r"bad.jsonl, line 6: not UTF-8: .*; 2 were skipped before it \(json 2\); --skip-bad$"),
    ):
        with pytest.raises(InputError, match=message):
            list(event_files.mutations(bad, skipped=event_files.Skipped(limit, "; --skip-bad")))
    assert len(list(event_files.mutations(bad, skipped=event_files.Skipped(13)))) == 14


def test_a_file_of_nothing_but_bad_lines_is_the_wrong_file(tmp_path: Path) -> None:
    """A file without a valid line is an error."""
    path = tmp_path / "x.csv"
    path.write_bytes(b"type,time,user\nfollow,1,a\n")
    with pytest.raises(InputError, match=r"none of 2 lines holds an event \(json 2\); the first: .*looks like CSV"):
        list(event_files.mutations(path, skipped=event_files.Skipped(None)))


def test_what_is_cut_off_cannot_be_left_out(tmp_path: Path) -> None:
    """A file that is cut off is an error, whatever may be skipped."""
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(GOOD % at for at in range(99)))[:-9])
    with pytest.raises(InputError, match="cut off"):
        list(event_files.mutations(path, skipped=event_files.Skipped(None)))


def test_rows_of_parquet_and_events_of_arrays_are_left_out(tmp_path: Path) -> None:
    """A column of a wrong type is invalid only in rows with a value; an invalid event of an array affects no other."""
    path = tmp_path / "x.parquet"
    columns = {"type": ["forget", "follow", "forget"], "time": [1, 2, 3], "user": ["a"] * 3}
    pq.write_table(pa.table({**columns, "target": pa.array([None, b"b", None], pa.binary())}), path)
    skipped = event_files.Skipped(None)
    assert len(list(event_files.mutations(path, skipped=skipped))) == 2
    assert skipped.counts() == "id 1"
    rows: list[Any] = [json.loads(GOOD % 1), "\x1b[31m", json.loads(GOOD % 2), {"type": []}, [[]]]
    shown: list[str] = []
    path = tmp_path / "x.json"
    path.write_text(json.dumps(rows, indent=1))
    skipped = event_files.Skipped(None, show=shown.append)
    assert len(list(event_files.mutations(path, skipped=skipped))) == 2
    assert skipped.reasons == {"schema": 1, "type": 1, "nested": 1}
    assert shown[0] == f'skipped: {path}, event 2: not an event; each must be one JSON object: "\\u001b[31m"'


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any], str]:
    """Run a command; returns exit code, JSON and standard error."""
    code = cli.run([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out or "{}"), captured.err


def test_replay_leaves_bad_lines_out_when_asked(bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--skip-bad takes a number or none, before or behind the file, and the summary has the counts."""
    out = tmp_path / "out"
    code, _, error = run(capsys, "replay", bad, "--out", out)
    assert (code, "--skip-bad skips such lines" in error) == (1, True)
    code, _, error = run(capsys, "replay", "--skip-bad", "3", bad, "--out", out)
    assert (code, "3 were skipped before it" in error) == (1, True)
    for arguments in (("--skip-bad", bad), (bad, "--skip-bad"), ("--skip-bad", "13", bad), ("--skip-bad=13", bad)):
        code, summary, error = run(capsys, "replay", *arguments, "--out", out)
        assert (code, summary["events"], summary["skipped"]["schema"]) == (0, 14, 4)
        assert error.count("skipped: ") == event_files.SHOWN + 1
    assert cli.run(["replay", str(bad), "--skip-bad", "--out", str(out)]) == 0
    assert "13 invalid lines skipped (schema 4, json 2" in capsys.readouterr().out


def test_produce_checks_without_kafka(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It shows counts by type and reason and the range of times, and fails if more lines are invalid than allowed."""
    code, found, _ = run(capsys, "produce", "--check", bad)
    assert (code, found["events"], found["types"]) == (1, 14, {"follow": 14})
    assert (found["first"], found["last"]) == ("1970-01-01T00:00:00+00:00", "1970-01-01T00:01:39+00:00")
    assert sum(found["skipped"].values()) == 13
    for limit, wanted in (((), 0), (("13",), 0), (("12",), 1)):
        assert run(capsys, "produce", "--check", bad, "--skip-bad", *limit)[0] == wanted
    assert cli.run(["produce", "--check", str(bad)]) == 1
    printed = capsys.readouterr().out
    assert "14 events from 1970-01-01T00:00:00+00:00 to" in printed
    assert "13 lines are invalid" in printed
    code, found, _ = run(capsys, "produce", "--check", "/dev/null")
    assert (code, found["events"], found["first"], found["skipped"]) == (0, 0, None, {})


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_training_and_evaluation_have_it_too(bad: Path, tmp_path: Path, command: str, capsys: Any) -> None:
    """They read the valid lines and then report that these are too few."""
    out = ("--out", str(tmp_path / "out")) if command == "train" else ()
    assert cli.run([command, str(bad), *out]) == 1
    assert "line 2: not JSON" in capsys.readouterr().err
    assert cli.run([command, str(bad), *out, "--skip-bad"]) == 1
    error = capsys.readouterr().err
    assert "skipped: " in error
    assert "no posts" in error.splitlines()[-1] or "no create" in error.splitlines()[-1]
