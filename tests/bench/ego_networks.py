"""Networks on ego networks beside the trees that predict shares: `python -m tests.bench.ego_networks FILE`.

All models are judged on the same examples, those of `groundswell train-next FILE --memory all`. The networks learn from
the newest examples, which a second fit of the trees learns from, too. Prints one JSON object.

--examples 24000   examples that teach the networks
--models GATv2     only some of: GATv2, GCN, GATv2-structure, GCN-structure
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.evaluation.metrics import Figure, auc_figure
from model.next_action.ego_networks import EgoNetworks, sample, structure
from model.next_action.examples import Examples, matched
from model.next_action.features import features
from model.next_action.networks import KINDS, EgoScorer
from model.next_action.timeline import FOREVER, Timeline
from model.next_action.training import (
    CANDIDATES,
    FEW_ACTIVE,
    SEVERAL_ACTIVE,
    Split,
    boundaries,
    cost_ms,
    rows_of,
    split,
)
from model.next_action.trees import grow
from streams.commands._next_training import index
from streams.messages.files import event_files

EXAMPLES, VALIDATION = 24_000, 8_000
GROUP = 4
"""Examples of one share: itself and three others."""
STRUCTURE = "-structure"
MODELS = tuple(kind + suffix for suffix in ("", STRUCTURE) for kind in KINDS)

Scores = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Task:
    """What is learned from and judged on.

    Attributes:
        made: the index.
        few, several: examples with at least one and at least three active followed users.
        part: the examples that teach the networks and stop their fits, with features.
        networks: ego networks of these two, and of the judged examples of `few` and `several`.
        embedding: of users, by the follows before the first validating post.
    """

    made: Timeline
    few: Split
    several: Split
    part: Split
    networks: list[EgoNetworks]
    embedding: np.ndarray


def say(text: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def prepare(file: Path, examples: int) -> Task:
    """Return the task of a file."""
    made = index(list(event_files.mutations(file)), FOREVER)
    every = matched(made, FEW_ACTIVE, 0)
    bounds = boundaries(made, every)
    few = split(made, every, bounds)
    several = split(made, matched(made, SEVERAL_ACTIVE, 0), bounds)
    chosen = [newest(made, few.examples[0], examples), newest(made, few.examples[1], VALIDATION), slice(None)]
    part = Split(
        tuple(one.of(rows) for one, rows in zip(few.examples, chosen, strict=True)),
        tuple(one[rows] for one, rows in zip(few.values, chosen, strict=True)),
    )
    wanted = (part.examples[0], part.examples[1], few.examples[2], several.examples[2])
    begin = time.perf_counter()
    networks = [sample(made, one, 0) for one in wanted]
    say(f"sampled {sum(len(one.users) for one in networks):,} ego networks in {time.perf_counter() - begin:.1f} s")
    return Task(made, few, several, part, networks, structure(made, bounds[0]))


def newest(made: Timeline, examples: Examples, number: int) -> np.ndarray:
    """Return about that many examples, those of the newest posts, by their numbers; shares keep their others."""
    born = made.born[examples.post[::GROUP]]
    groups = np.argsort(-born, kind="stable")[: number // GROUP]
    rows: np.ndarray = (groups[:, None] * GROUP + np.arange(GROUP)).ravel()
    return rows


def judged(name: str, scores: tuple[np.ndarray, np.ndarray], task: Task, ms: float, served: Scores) -> dict[str, Any]:
    """Return a row of the table: AUC, and AUC minus that of the served trees on the same draws."""
    row: dict[str, Any] = {"model": name, "ms_per_1000": round(ms, 1)}
    for number, active in enumerate((FEW_ACTIVE, SEVERAL_ACTIVE)):
        shared = (task.few, task.several)[number].examples[2].shared
        figure: Figure = auc_figure(scores[number], shared)
        row[f"auc_{active}"] = figure.row()
        row[f"minus_served_{active}"] = figure.minus(auc_figure(served["served"][number], shared)).row()
    return row


def by_network(model: str, task: Task) -> tuple[tuple[np.ndarray, np.ndarray], float, dict[str, Any]]:
    """Train a network; returns its scores, milliseconds for 1,000 candidates, and what training took."""
    activity = not model.endswith(STRUCTURE)
    scorer = EgoScorer(model.removesuffix(STRUCTURE), task.embedding, 0, activity=activity)
    lines: list[str] = []

    def progress(line: str) -> None:
        say(f"{model}, {line}")
        lines.append(line)

    teach, stop = ((task.networks[i], *task.part.part(i)) for i in (0, 1))
    begin = time.perf_counter()
    epochs = scorer.fit(teach, stop, progress)
    seconds = time.perf_counter() - begin
    few, several = (
        scorer.score(task.networks[2 + i], part.values[2]) for i, part in enumerate((task.few, task.several))
    )
    timed = task.few.examples[2].of(np.arange(CANDIDATES) % len(task.few.examples[2].post))

    def answer() -> object:
        return scorer.score(sample(task.made, timed, 0), features(task.made, *timed[:3]))

    return (few, several), cost_ms(answer), {"epochs": epochs, "seconds": round(seconds, 1), "validation": lines}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = prepare(given.file, given.examples)
    say("trees")
    trees, fewer = grow(task.few.part(0), task.few.part(1)), grow(task.part.part(0), task.part.part(1))
    tests = [part.values[2] for part in (task.few, task.several)]
    served: Scores = {"served": (trees.score(tests[0]), trees.score(tests[1]))}
    baseline = rows_of(task.made, task.few, trees, FEW_ACTIVE, 0) + rows_of(
        task.made, task.several, trees, SEVERAL_ACTIVE, 0
    )
    rows: list[dict[str, Any]] = [
        {"model": row.name, "active": row.active, "auc": row.auc.row(), "ms_per_1000": round(row.ms, 1)}
        for row in baseline
    ]
    score: Callable[[np.ndarray], np.ndarray] = fewer.score
    rows.append(judged("LightGBM, examples of the networks", (score(tests[0]), score(tests[1])), task, 0.0, served))
    for model in given.models:
        scores, ms, taken = by_network(model, task)
        rows.append({**judged(model, scores, task, ms, served), **taken})
        say(json.dumps({key: value for key, value in rows[-1].items() if key != "validation"}))
    sizes = [len(one.users) for one in task.networks]
    sys.stdout.write(json.dumps({"networks": sizes, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
