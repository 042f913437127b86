"""Selection of the floor by validation: the graph is run with each floor, and the search fit compares them.

floor 1, 2, 4, 8 ──► the graph with that floor ──► snapshots ──► the search fit ──► validation
                                    └─► nodes that get stale per 1,000 events
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from model.config import ModelConfig
from model.training.floor_selection import FLOORS, LEAST, Trial, choose
from streams.offline.dataset import Dataset, Progress

if TYPE_CHECKING:
    from model.training.fitting import TrainingPlan
    from model.training.run import SearchResult


@dataclass(frozen=True)
class FloorChoice:
    """The selected floor.

    Attributes:
        config: Configuration with the selected floor.
        dataset: Data of the graph with that floor.
        searched: Search fit on these data.
        trials: Results of all floors; empty if there are too few users to compare floors.
    """

    config: ModelConfig
    dataset: Dataset
    searched: SearchResult
    trials: list[Trial]


def checkpoint_path(folder: Path, floor: int) -> Path:
    """Return the checkpoint file of the search fit with a floor."""
    return folder / f"unfinished-floor-{floor}.safetensors"


def choose_floor(
    build: Callable[[ModelConfig], Dataset],
    config: ModelConfig,
    seed: int,
    plan: TrainingPlan,
    folder: Path,
    progress: Progress,
) -> FloorChoice:
    """Try every floor and select one; with too few labelled users, keep the floor of the configuration.

    Args:
        build: Runs the graph for a configuration, and counts stale nodes.
        config: Configuration to train.
        seed: Seed of the search fits.
        plan: Duration and regularisation.
        folder: Folder of the checkpoints.
        progress: Receives one line per step.

    Raises:
        TrainingError: the data hold too few labelled users to train.
    """
    from model.training.run import search

    def fit(candidate: ModelConfig) -> tuple[Dataset, SearchResult]:
        dataset = build(candidate)
        checkpoint = checkpoint_path(folder, candidate.floor)
        return dataset, search(dataset.snapshots, candidate, seed, progress, plan, checkpoint=checkpoint)

    tried: dict[int, tuple[ModelConfig, SearchResult]] = {}
    trials: list[Trial] = []
    for floor in FLOORS:
        candidate = replace(config, floor=floor)
        progress(f"floor {floor}, one of {', '.join(map(str, FLOORS))}")
        dataset, searched = fit(candidate)
        if searched.small or searched.users < LEAST:
            progress(f"{searched.users} validation users: too few to compare floors, {config.floor} is kept")
            if floor != config.floor:
                dataset, searched = fit(config)
            return FloorChoice(config, dataset, searched, [])
        tried[floor] = candidate, searched
        trials.append(Trial(floor, searched.validation, searched.users, dataset.stale or 0.0))
        progress(
            f"floor {floor}: validation {trials[-1].validation:.4f}, {trials[-1].stale:.1f} stale per 1,000 events"
        )
    floor = choose(trials).floor
    chosen, searched = tried[floor]
    progress(f"floor {floor} is selected")
    if floor != FLOORS[-1]:
        # Rebuilt instead of stored: all datasets at once would take four times the memory.
        dataset = build(chosen)
    return FloorChoice(chosen, dataset, searched, trials)
