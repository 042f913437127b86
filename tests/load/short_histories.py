"""What `train` makes of short histories: `python -m tests.load.short_histories FILE --cut TIME`.

Histories of several lengths end at one cut, so for a horizon all of them are compared on the posts of the same days
after it. Zero-shot and what `train` keeps are printed beside the centred past mean of the same history.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from graphstate.types import Mutation
from model.artifact import Artifact
from model.config import OWN, ModelConfig, seconds_of
from model.errors import TrainingError
from model.evaluation.metrics import spearman, spearman_figure
from model.training.run import adapt
from streams.messages.files import event_files
from streams.offline import evaluation

DAY = 86_400_000_000
PAST = OWN.index("past_mean")


def row(
    events: Sequence[Mutation], shipped: Artifact, config: ModelConfig, cut: int, days: int, after: int
) -> dict[str, Any]:
    """Train on `days` before the cut; return Spearman over the authors of posts in the `after` days that follow."""
    begin, until = cut - days * DAY, cut + after * DAY
    history = [event for event in events if begin <= event.time <= until]
    times = evaluation.Protocol(begin, 0.0, cut, until, config.horizon_s * 1_000_000)
    users = evaluation.evaluation_set(history, times)
    dataset = evaluation.data_before(history, config, times)
    given = replace(shipped, config=replace(shipped.config, horizon_s=config.horizon_s))
    trained = adapt(dataset.snapshots, config, given)
    people = evaluation.candidates(dataset, users.ids)
    scores = {
        "past_mean": people.graph.own[people.rows, PAST].astype(np.float64),
        "zero_shot": people.score(given),
        "kept": people.score(trained.artifact),
    }
    figures = {name: spearman_figure(score, users.truth) for name, score in scores.items()}
    difference = figures["kept"].minus(figures["past_mean"])
    warm = users.warm
    return {
        "users": len(users.ids),
        "warm": int(warm.sum()),
        "kept_candidate": trained.chosen,
        **{
            name: [round(figures[name].value, 3), round(spearman(score[warm], users.truth[warm]), 3)]
            for name, score in scores.items()
        },
        "kept_minus_past_mean": [round(part, 3) for part in (difference.value, difference.low, difference.high)],
    }


def main() -> int:
    """Print one line for each horizon and length of history."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--cut", required=True, help="end of all histories")
    parser.add_argument("--days", type=int, nargs="+", default=[2, 5, 10, 30])
    parser.add_argument("--horizons", nargs="+", default=["6h", "1d", "3d"])
    parser.add_argument("--after", type=int, default=14, help="days after the cut whose posts are compared on")
    parser.add_argument("--model", type=Path, help="artifact to start from; default: the packaged one")
    given = parser.parse_args()
    shipped = Artifact.load(given.model) if given.model else Artifact.default()
    events = sorted(event_files.mutations(given.file), key=lambda event: event.time)
    for horizon in given.horizons:
        config = replace(ModelConfig(), horizon_s=seconds_of(horizon))
        for days in given.days:
            try:
                found = row(events, shipped, config, event_files.time_us(given.cut), days, given.after)
            except TrainingError as error:
                found = {"refused": str(error)}
            sys.stdout.write(json.dumps({"horizon": horizon, "days": days, **found}) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
