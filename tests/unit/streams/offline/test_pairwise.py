"""`evaluate --pairs`: what a file of pairs must be, and what is printed about it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.errors import InputError
from streams.offline.pairwise import read, show


def write(path: Path, **changed: object) -> Path:
    """Write a file of 600 pairs in which the user with more followers is the more influential."""
    random = np.random.default_rng(1)
    counts = np.floor(np.exp(random.normal(4, 2, (60, 2))))
    a, b = random.integers(0, 60, (2, 600))
    columns = {
        "Choice": (counts[a, 0] > counts[b, 0]).astype(np.int64),
        **{f"{side}_{name}": counts[rows, column] for side, rows in (("A", a), ("B", b))
           for column, name in enumerate(("follower_count", "posts"))},
    }  # fmt: skip
    pq.write_table(pa.table({name: value for name, value in (columns | changed).items() if value is not None}), path)
    return path


@pytest.mark.slow
def test_the_command_reports_every_scorer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object has every scorer; here followers decide, and every scorer that reads them has a high AUC."""
    path = write(tmp_path / "pairs.parquet")
    result = CliRunner().invoke(app, ["evaluate", "--pairs", str(path), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    scores = {scorer["name"]: scorer["auc"]["value"] for scorer in report["scorers"]}
    assert report["people"] <= 60
    assert scores["follower_count ratio"] == 1
    assert min(scores["logistic, all counts"], scores["LightGBM, all counts"]) > 0.95 > scores["posts ratio"] + 0.2
    show(report, as_json=False)
    printed = capsys.readouterr().out
    assert "600 pairs of" in printed
    assert "LightGBM, all counts − logistic, all counts" in printed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"B_posts": None}, "no column B_posts"),
        ({"Choice": None}, "no column Choice"),
        ({"Choice": np.ones(600)}, "Choice must be 1"),
        ({"A_posts": np.full(600, -1.0)}, "at least 0"),
        ({"A_posts": np.full(600, np.nan)}, "at least 0"),
        ({"A_posts": ["many"] * 600}, "must be numbers"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    """The message names the problem."""
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / "pairs.parquet", **changed))


def test_pairs_and_event_files_exclude_each_other(tmp_path: Path) -> None:
    """The command needs event files or pairs, and not both; a file that is not Parquet is refused."""
    path = tmp_path / "pairs.parquet"
    path.write_text("no parquet")
    for words in ([], [str(path), "--pairs", str(path)]):
        done = CliRunner().invoke(app, ["evaluate", *words])
        assert "give one of" in str(done.exception)
    with pytest.raises(InputError, match="cannot be read"):
        read(path)
