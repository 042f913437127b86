"""Training of who acts next on events: events in; artifact, card and figures out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

from graphstate.types import Mutation
from model.config import seconds_of
from model.next_action import training
from model.next_action.artifact import NextActionArtifact
from model.next_action.card import card, summary
from model.next_action.timeline import FOREVER, Timeline, timeline
from streams.commands._social_history import social_history
from streams.errors import InputError
from streams.messages.headers import rfc3339

ALL = "all"
SECOND_US = 1_000_000


def spans(horizon: str, memory: str) -> tuple[int, int]:
    """Return horizon and memory (µs) of their texts.

    Raises:
        ConfigError: one is no duration.
    """
    return seconds_of(horizon) * SECOND_US, FOREVER if memory == ALL else seconds_of(memory) * SECOND_US


def train(
    mutations: Sequence[Mutation], horizon_memory: tuple[int, int], seed: int, origin: tuple[str, str],
    progress: Callable[[str], None],
) -> tuple[NextActionArtifact, dict[str, Any]]:  # fmt: skip
    """Train on events.

    Args:
        mutations: the events.
        horizon_memory: see `spans`.
        seed: of everything drawn.
        origin: the command, and the name of the data, for the card.
        progress: is given a line for each stage.

    Returns:
        The artifact with its card, and its figures as plain values.

    Raises:
        InputError: there are no posts.
        TrainingError: there are too few shares by exposed users.
    """
    begin = perf_counter()
    progress(f"indexing {len(mutations):,} events")
    made = index(mutations, horizon_memory[1])
    artifact, judged = training.train(made, horizon_memory[0], seed, progress)
    first, last = int(made.born.min()), int(made.post_at.max())
    data = f"{origin[1]}: {len(made.author):,} posts and {len(made.post_at) - len(made.author):,} shares"
    data += f" from {rfc3339(first)} to {rfc3339(last)}"
    described = card(artifact.config, judged, origin[0], data, perf_counter() - begin)
    return replace(artifact, card=described), summary(judged)


def index(mutations: Sequence[Mutation], memory: int) -> Timeline:
    """Return the index of events.

    Raises:
        InputError: there are no posts.
    """
    society = social_history(mutations)
    if not society.posts:
        raise InputError("there are no posts; give an event file with creates, shares and follows")
    return timeline(society.history, society.follows, memory)
