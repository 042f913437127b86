"""Evaluation on pairs of people: predict the more influential of two from their counts alone.

The columns are those of "Influencers in Social Networks" (Kaggle, PeerIndex 2013): `Choice`, 1 if A is more
influential, and `A_NAME`, `B_NAME` for every count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from model.evaluation.metrics import figure_text
from model.evaluation.pairwise import Pairs, PairwiseResult, Scorer, agreement, evaluate_pairs, logistic, single, trees
from model.types import Float64s
from streams.errors import InputError
from streams.telemetry import console

FOLDS = 5
KEPT = ("follower_count", "following_count", "retweets_received", "retweets_sent", "posts")
"""Counts that the graph has too: followers, following, shares received, shares made, contents."""
_ALONE = ("follower_count", "retweets_received", "posts")
"""Counts that are scored by themselves."""
_FOLLOWERS, _LOGISTIC, _TREES = "follower_count ratio", "logistic, all counts", "LightGBM, all counts"


def read(path: Path) -> Pairs:
    """Read the pairs of a Parquet file.

    Raises:
        InputError: the file cannot be read, or has other columns or values.
    """
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        table = pq.read_table(path)
    except (OSError, ArrowException) as error:
        raise InputError(f"{path} cannot be read as a Parquet file of pairs: {error}") from error
    names = [name.removeprefix("A_") for name in table.column_names if name.startswith("A_")]
    missing = [name for name in ("Choice", *(f"B_{name}" for name in names)) if name not in table.column_names]
    if missing or not names:
        raise InputError(f"{path} has no column {(missing or ['A_…'])[0]}: pairs need Choice, A_NAME and B_NAME")
    try:
        sides = [_columns(table, [f"{side}_{name}" for name in names]) for side in "AB"]
        choice = _columns(table, ["Choice"])[:, 0]
    except (ArrowException, ValueError) as error:
        raise InputError(f"{path}: counts and Choice must be numbers ({error})") from error
    if not np.isfinite(sides).all() or min(side.min(initial=0) for side in sides) < 0:
        raise InputError(f"{path}: every count must be a number of at least 0")
    if set(np.unique(choice).tolist()) != {0.0, 1.0}:
        raise InputError(f"{path}: Choice must be 1 where A is the more influential, else 0, and both must occur")
    return Pairs.of(names, sides[0], sides[1], choice == 1)


def _columns(table: Any, names: list[str]) -> Float64s:
    return np.stack([table[name].to_numpy().astype(np.float64) for name in names], axis=1)


def scorers(names: list[str], seed: int = 0) -> dict[str, Scorer]:
    """Return the compared scorers: single ratios, the counts of the graph, and both models on all counts."""
    kept = tuple(name for name in KEPT if name in names)
    return {
        **{f"{name} ratio": single(name) for name in _ALONE if name in names},
        **({"logistic, counts of the graph": logistic(kept)} if kept else {}),
        _LOGISTIC: logistic(),
        _TREES: trees(seed),
    }


def evaluate(path: Path, *, folds: int = FOLDS, seed: int = 0) -> dict[str, Any]:
    """Evaluate all scorers on a file of pairs; return the report as a JSON object."""
    pairs = read(path)
    results = evaluate_pairs(pairs, scorers(pairs.names, seed), folds, seed)
    component = pairs.components()
    again, agreed = agreement(pairs)
    return {
        "file": path.name,
        "pairs": len(pairs.choice),
        "people": pairs.people,
        "largest_component": int(np.bincount(component).max()),
        "folds": folds,
        "asked_again": again,
        "agreement": round(agreed, 4),
        "scorers": [
            {
                "name": result.name,
                "auc": result.auc.row(),
                "accuracy": result.accuracy.row(),
                "auc_people_shared": result.shared,
            }
            for result in results
        ],
        "paired": _paired(results),
    }


def _paired(results: list[PairwiseResult]) -> list[dict[str, Any]]:
    """Return the AUC of each model minus that of simpler ones, over the same draws."""
    named = {result.name: result for result in results}
    pairs = ((_LOGISTIC, _FOLLOWERS), (_TREES, _FOLLOWERS), (_TREES, _LOGISTIC))
    return [
        {"name": name, "minus": other, "auc": named[name].auc.minus(named[other].auc).row()}
        for name, other in pairs
        if other in named
    ]


def show(report: dict[str, Any], *, as_json: bool) -> None:
    """Print the report of `evaluate`."""
    import typer

    if as_json:
        console.as_json(report)
        return
    typer.echo(
        f"{report['pairs']:,} pairs of {report['people']:,} people (identified by their counts), every pair scored "
        f"by models trained without both of its people; {report['folds']} folds of people.\nThe largest connected "
        f"component holds {report['largest_component']:,} pairs. {report['asked_again']:,} pairs occur more than once, "
        f"{report['agreement']:.1%} of those agree with their majority.\nIntervals: 95 %, bootstrap over people.\n"
    )
    console.table(
        [
            {
                "scorer": scorer["name"],
                "AUC": figure_text(scorer["auc"]),
                "accuracy": figure_text(scorer["accuracy"]),
                "AUC, people in several folds": f"{scorer['auc_people_shared']:.3f}",
            }
            for scorer in report["scorers"]
        ]
    )
    typer.echo("")
    console.table(
        [
            {"difference": f"{pair['name']} − {pair['minus']}", "AUC": figure_text(pair["auc"], "+")}
            for pair in report["paired"]
        ]
    )
