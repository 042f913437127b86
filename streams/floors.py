"""The floor of an artifact, chosen on validation: the graph is run with each floor, and the search fit judges.

floor 1, 2, 4, 8 ──► the graph with that floor ──► snapshots ──► the search fit ──► validation
                                    └─► nodes that get stale per 1,000 events
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from model.choice import FLOORS, LEAST, Trial, choose
from model.config import ModelConfig
from streams.training import Dataset, Progress

if TYPE_CHECKING:
    from model.train import Searched, TrainingPlan


@dataclass(frozen=True)
class Chosen:
    """A configuration with the floor that was chosen, its data and its search fit, and what was tried."""

    config: ModelConfig
    dataset: Dataset
    searched: Searched
    trials: list[Trial]


def notes_of(folder: Path, floor: int) -> Path:
    """Where the search fit with a floor stands."""
    return folder / f"unfinished-floor-{floor}.safetensors"


def choose_floor(
    build: Callable[[ModelConfig], Dataset],
    config: ModelConfig,
    seed: int,
    plan: TrainingPlan,
    notes: Path,
    progress: Progress,
) -> Chosen:
    """Try every floor; `build` runs the graph for a configuration, counting staleness, notes is a folder.

    Where too few users have labels, to learn from or to judge by, the configuration's own floor stays.

    Raises:
        TrainingError: there is nothing to learn from.
    """
    tried: dict[int, tuple[ModelConfig, Searched]] = {}
    trials: list[Trial] = []
    for floor in FLOORS:
        of = replace(config, floor=floor)
        progress(f"floor {floor}, one of {', '.join(map(str, FLOORS))}")
        dataset, searched = _try(build, of, seed, plan, notes_of(notes, floor), progress)
        if searched.small or searched.users < LEAST:
            progress(f"{searched.users} users to judge by: too few to tell floors apart, {config.floor} stays")
            if floor != config.floor:
                dataset, searched = _try(build, config, seed, plan, notes_of(notes, config.floor), progress)
            return Chosen(config, dataset, searched, [])
        tried[floor] = of, searched
        trials.append(Trial(floor, searched.validation, searched.users, dataset.stale or 0.0))
        progress(
            f"floor {floor}: validation {trials[-1].validation:.4f}, {trials[-1].stale:.1f} stale per 1,000 events"
        )
    floor = choose(trials).floor
    chosen, searched = tried[floor]
    progress(f"floor {floor} is chosen")
    if floor != FLOORS[-1]:
        # All datasets at once would take as much memory as there are floors.
        dataset = build(chosen)
    return Chosen(chosen, dataset, searched, trials)


def _try(
    build: Callable[[ModelConfig], Dataset],
    config: ModelConfig,
    seed: int,
    plan: TrainingPlan,
    notes: Path,
    progress: Progress,
) -> tuple[Dataset, Searched]:
    from model.train import search

    dataset = build(config)
    return dataset, search(dataset.snapshots, config, seed, progress, plan, notes=notes)
