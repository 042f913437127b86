"""What commands print on standard output: tables, values, figures with intervals."""

from __future__ import annotations

import json

import pytest

from streams.telemetry import console


def test_a_table_is_aligned_under_its_names(capsys: pytest.CaptureFixture[str]) -> None:
    """None is a dash, a boolean is yes or no; no rows print nothing."""
    console.table([{"user": "ann", "live": True, "reach": None}, {"user": "b", "live": False, "reach": 12}])
    assert capsys.readouterr().out.splitlines() == ["user  live  reach", "ann   yes   -", "b     no    12"]
    console.table([])
    assert capsys.readouterr().out == ""


def test_a_json_value_is_one_line_and_holds_no_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    """The value that a reader decodes is the same."""
    console.as_json({"user": "a\x1b[31m", "n": 1})
    line = capsys.readouterr().out
    assert line.rstrip("\n").isprintable()
    assert json.loads(line) == {"user": "a\x1b[31m", "n": 1}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"value": None, "low": None, "high": None}, "–"),
        ({"value": 0.5, "low": None, "high": None}, "0.500"),
        ({"value": 0.5, "low": 0.25, "high": 0.75}, "0.500 (0.250 to 0.750)"),
    ],
)
def test_a_figure_has_its_interval(row: dict[str, float | None], text: str) -> None:
    """A dash stands for no value; an interval is shown only if there is one."""
    assert console.figure(row) == text


@pytest.mark.parametrize(
    ("reach", "most", "text"),
    [(0.125, 0, "0.12"), (1234.5, 0, "1234.50"), (3.2e11, 0, "3e+11"), (3.2e11, 1_234, "> 1,234"), (12.0, 12, "12.00")],
)
def test_no_reach_is_above_the_number_of_users(reach: float, most: int, text: str) -> None:
    """Before a calibration a score may be far above it; without that number it is short."""
    assert console.people(reach, most) == text


def test_a_note_says_that_scores_are_not_calibrated(capsys: pytest.CaptureFixture[str]) -> None:
    """It is on standard error, and only for an answer with a reach that is not."""
    console.note_calibration([{"calibrated": True}, {}, {"calibrated": None}])
    assert capsys.readouterr() == ("", "")
    console.note_calibration([{"calibrated": True}, {"calibrated": False}])
    assert capsys.readouterr() == ("", f"note: {console.NOT_CALIBRATED}\n")
