"""`groundswell evaluate --topics`: what topics add to the history of authors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer

from streams.telemetry import console

if TYPE_CHECKING:
    from graphstate.types import Mutation
    from model.evaluation.topics import Posts


def posts_of(mutations: Iterable[Mutation], since_us: int, horizon_us: int) -> Posts:
    """Return the posts in force and their shares within the horizon, in order of time.

    Args:
        mutations: Events.
        since_us: Only posts from this time on.
        horizon_us: The horizon (µs).
    """
    import numpy as np

    from graphstate.memory.labels import read_labels
    from graphstate.types import Kind
    from model.evaluation.topics import Posts
    from streams.offline.dataset import effective_events

    events = list(mutations)
    created, shared = effective_events(events)
    labels: dict[tuple[int, str, str], str] = {}
    for event in events:
        if event.kind == Kind.LABELS:
            key = event.time, event.user, event.other
            labels[key] = min(event.extra or "", labels.get(key, event.extra or ""))
    shares: dict[str, list[int]] = defaultdict(list)
    for (_, content), time in shared.items():
        if content in created and time <= created[content][0] + horizon_us:
            shares[content].append(time)
    order = sorted((time, content, user) for content, (time, user) in created.items() if time >= since_us)
    authors: dict[str, int] = {}
    topics: dict[str, int] = {}
    return Posts(
        np.array([time for time, _, _ in order], np.int64),
        np.array([authors.setdefault(user, len(authors)) for _, _, user in order], np.int64),
        [
            tuple(
                topics.setdefault(topic, len(topics))
                for topic in read_labels(labels.get((time, user, content), '[""]'))[1]
            )
            for time, content, user in order
        ],
        [np.sort(np.array(shares[content], np.int64)) for _, content, _ in order],
        max((event.time for event in events), default=0),
        horizon_us,
    )


def show(report: dict[str, Any], *, as_json: bool) -> None:
    """Print the report of `model.evaluation.topics.evaluate`."""
    from model.evaluation.metrics import figure_text

    if as_json:
        console.as_json(report)
        return
    typer.echo(
        f"{report['predicted']:,} of {report['posts']:,} posts of {report['authors']:,} authors, each predicted from "
        f"what was known before it; {report['with_history_on_topic']:.0%} have one of their author on a topic before.\n"
        "Spearman with reach over all of them; intervals: 95 %, bootstrap over authors.\n"
    )
    console.table([{"scorer": one["name"], "Spearman": figure_text(one["spearman"])} for one in report["scorers"]])
    typer.echo("")
    console.table(
        [
            {"difference": f"{one['name']} − {one['minus']}", "Spearman": figure_text(one["spearman"], "+")}
            for one in report["paired"]
        ]
    )
