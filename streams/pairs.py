"""Files of pairs: who of two people is the more influential, and what their counts alone say about it.

The columns are those of "Influencers in Social Networks" (Kaggle, PeerIndex 2013): `Choice`, 1 where A is the more
influential, and `A_NAME`, `B_NAME` for every count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from model.metrics import figure_text
from model.pairs import Pairs, Scorer, Verdict, agreement, judge, logistic, single, trees
from model.types import Float64s
from streams import printing
from streams.errors import InputError

FOLDS = 5
KEPT = ("follower_count", "following_count", "retweets_received", "retweets_sent", "posts")
"""The counts that the graph keeps of everyone too: followers, following, shares received, shares made, contents."""
_ALONE = ("follower_count", "retweets_received", "posts")
"""The counts that stand for a score by themselves."""
_FOLLOWERS, _LOGISTIC, _TREES = "follower_count ratio", "logistic, all counts", "LightGBM, all counts"


def read(path: Path) -> Pairs:
    """The pairs of a Parquet file.

    Raises:
        InputError: it cannot be read, or has other columns or values.
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
    """What is compared: single ratios, the counts that the graph keeps, and both models on all."""
    kept = tuple(name for name in KEPT if name in names)
    return {
        **{f"{name} ratio": single(name) for name in _ALONE if name in names},
        **({"logistic, counts of the graph": logistic(kept)} if kept else {}),
        _LOGISTIC: logistic(),
        _TREES: trees(seed),
    }


def evaluate(path: Path, *, folds: int = FOLDS, seed: int = 0) -> dict[str, Any]:
    """Everything that is known about a file of pairs, as JSON takes it."""
    pairs = read(path)
    found = judge(pairs, scorers(pairs.names, seed), folds, seed)
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
            {"name": one.name, "auc": one.auc.row(), "accuracy": one.accuracy.row(), "auc_people_shared": one.shared}
            for one in found
        ],
        "paired": _paired(found),
    }


def _paired(found: list[Verdict]) -> list[dict[str, Any]]:
    """The AUC of each model minus that of simpler ones, over the same draws."""
    named = {one.name: one for one in found}
    asked = ((_LOGISTIC, _FOLLOWERS), (_TREES, _FOLLOWERS), (_TREES, _LOGISTIC))
    return [
        {"name": one, "minus": other, "auc": named[one].auc.minus(named[other].auc).row()}
        for one, other in asked
        if other in named
    ]


def show(found: dict[str, Any], *, as_json: bool) -> None:
    """Print what `evaluate` found."""
    import typer

    if as_json:
        printing.as_json(found)
        return
    typer.echo(
        f"{found['pairs']:,} pairs of {found['people']:,} people (told apart by their counts), every pair scored by "
        f"models that knew neither of its people; {found['folds']} folds of people.\nThe largest connected component "
        f"holds {found['largest_component']:,} pairs. {found['asked_again']:,} pairs come more than once, "
        f"{found['agreement']:.1%} of those agree with their majority.\nIntervals: 95 %, bootstrap over people.\n"
    )
    printing.table(
        [
            {
                "scorer": one["name"],
                "AUC": figure_text(one["auc"]),
                "accuracy": figure_text(one["accuracy"]),
                "AUC, people in several folds": f"{one['auc_people_shared']:.3f}",
            }
            for one in found["scorers"]
        ]
    )
    typer.echo("")
    printing.table(
        [
            {"difference": f"{one['name']} − {one['minus']}", "AUC": figure_text(one["auc"], "+")}
            for one in found["paired"]
        ]
    )
