"""What a pass publishes: values of the three topics that moved, tombstones of users that left, in that order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphstate.types import Int64s
from model.analysis.communities import NONE
from model.analysis.distances import Betweenness
from streams.analyst.background import LABEL, Analysis
from streams.analyst.measures import Measures
from streams.analyst.published import CENTRALITY, COMMUNITY, Published, Values
from streams.kafka.batches import publish
from streams.kafka.topics import Topics, TopicSpec
from streams.messages.analysis_outputs import (
    Centrality,
    Community,
    Seeds,
    Value,
    decode_centrality,
    decode_community,
    decode_seeds,
    to_message,
)
from streams.messages.headers import CloudEvents, rfc3339
from streams.telemetry.analyst_metrics import AnalystMetrics

SEED_LIST = "reach"
"""Name of the list that is always published."""
CASCADE_LIST = "ic"
"""Name of the list of the independent cascade, published if sets are kept."""


class Outputs:
    """Publishes the analyst's topics.

    Args:
        topics: the registry.
        group: the analyst's group, the source of its messages.
        metrics: counts what was acknowledged.
    """

    def __init__(self, topics: Topics, group: str, metrics: AnalystMetrics) -> None:
        self._topics, self._metrics = topics, metrics
        self._centrality, self._community = Published(CENTRALITY), Published(COMMUNITY)
        self._seeds: dict[str, tuple[str, ...]] = {}
        names = ("centrality", "community", "seeds")
        self._events = {
            spec.name: CloudEvents(f"groundswell.{name}", f"/{group}")
            for name, spec in zip(names, topics.analysis, strict=True)
        }

    def restore(
        self, centrality: dict[str, bytes], community: dict[str, bytes], seeds: dict[str, bytes], row: Any, label: Any
    ) -> tuple[Int64s, int]:
        """Note what the topics have at the start; returns community labels by row, and the first that is free.

        Args:
            centrality: newest value by user.
            community: newest value by user.
            seeds: newest value by list.
            row: returns the row of a user, a new one if it has none.
            label: returns the label of a community's id, `NONE` if it can have none.
        """
        for user, value in centrality.items():
            given = decode_centrality(value)
            self._centrality.restore(row(user), {name: getattr(given, name) for name in CENTRALITY})
        labels: dict[int, int] = {}
        for user, value in community.items():
            member = decode_community(value)
            labels[row(user)] = label(member.community)
            self._community.restore(row(user), {"community": labels[row(user)], "bridge": member.bridge})
        self._seeds = {name: decode_seeds(value).seeds for name, value in seeds.items()}
        by_row = np.full(max(labels, default=-1) + 1, NONE, np.int64)
        for number, known in labels.items():
            by_row[number] = known
        return by_row, max(labels.values(), default=-1) + 1

    async def publish(self, producer: Any, measures: Measures, analysis: Analysis | None) -> None:
        """Publish what moved and wait for all acknowledgements."""
        values: dict[str, NDArray[Any] | None] = {name: getattr(measures, name, None) for name in CENTRALITY}
        rows = len(measures.live)
        if analysis is not None:
            values["closeness"] = _padded(analysis.closeness, rows)
            if analysis.betweenness is not None:
                values["betweenness"] = _padded(_certain(analysis.betweenness), rows)
        moved, deleted = self._centrality.moved(measures.live, values)
        messages = ((measures.ids[row], _centrality(measures, values, row)) for row in moved.tolist())
        await self._send(producer, self._topics.centrality, measures, messages, deleted)
        self._centrality.acknowledge(values, moved, deleted)
        await self._publish_communities(producer, measures, analysis)
        if analysis is not None:
            await self._publish_seeds(producer, measures, analysis)

    async def _publish_communities(self, producer: Any, measures: Measures, analysis: Analysis | None) -> None:
        rows = len(measures.live)
        labels = np.full(rows, NONE, np.int64)
        bridge: NDArray[Any] | None = None
        if analysis is not None:
            labels[: len(analysis.labels)] = analysis.labels
            bridge = _padded(analysis.bridge, rows)
            has_community = measures.live & (labels != NONE)
        else:
            # Nothing is known yet, so only users that left are deleted.
            self._community.ensure_rows(rows)
            has_community = measures.live & self._community.present[:rows]
        values: Values = {"community": labels if analysis is not None else None, "bridge": bridge}
        moved, deleted = self._community.moved(has_community, values)
        as_of = rfc3339(max(measures.as_of, 0))
        messages = (
            (
                measures.ids[row],
                Community(measures.ids[row], analysis.community_id(labels[row]), float(bridge[row]), as_of),
            )
            for row in (moved.tolist() if bridge is not None else ())
            if bridge is not None and analysis is not None
        )
        await self._send(producer, self._topics.community, measures, messages, deleted)
        self._community.acknowledge(values, moved, deleted)

    async def _publish_seeds(self, producer: Any, measures: Measures, analysis: Analysis) -> None:
        as_of = rfc3339(max(measures.as_of, 0))
        # A person who left since the list was made is not in it.
        kept = [
            (measures.ids[row], added)
            for row, added in zip(analysis.seeds.tolist(), analysis.seed_reach.tolist(), strict=True)
            if measures.live[row]
        ]
        reach = sum(added for _, added in kept)
        lists = [Seeds(SEED_LIST, tuple(user for user, _ in kept), reach, as_of)]
        if (cascade := analysis.cascade) is not None:
            rows = tuple(measures.ids[row] for row in cascade.rows.tolist() if measures.live[row])
            lists.append(Seeds(CASCADE_LIST, rows, cascade.reach, as_of, cascade.guarantee, cascade.theta))
        moved = [(value.list, value) for value in lists if value.seeds != self._seeds.get(value.list, ())]
        await self._send(producer, self._topics.seeds, measures, moved, np.zeros(0, np.int64))
        self._seeds |= {name: value.seeds for name, value in moved}

    async def _send(
        self, producer: Any, spec: TopicSpec, measures: Measures, values: Iterable[tuple[str, Value]], deleted: Int64s
    ) -> None:
        def every() -> Iterator[tuple[str, Value | None]]:
            yield from values
            yield from ((measures.ids[row], None) for row in deleted.tolist())

        events, origin = self._events[spec.name], f"{measures.as_of}/{measures.number}"
        messages = (to_message(key, value, origin, measures.as_of, events) for key, value in every())
        count = await publish(producer, spec, messages, time.time_ns() // 1_000_000)
        self._metrics.published.labels(spec.name).inc(count - len(deleted))
        self._metrics.tombstones.labels(spec.name).inc(len(deleted))


def label_of(community: str) -> int:
    """Return the label of a community that was found, `NONE` for the id of another one."""
    number = community.removeprefix(LABEL)
    return int(number) if community.startswith(LABEL) and number.isascii() and number.isdigit() else NONE


def _padded(values: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return values of an earlier pass for the rows of a later one; not a number for new rows."""
    padded = np.full(rows, np.nan)
    padded[: len(values)] = values[:rows]
    return padded


def _certain(between: Betweenness) -> NDArray[np.float64]:
    """Return betweenness where its interval is known, elsewhere not a number."""
    return np.where(np.isnan(between.high), np.nan, between.value)


def _centrality(measures: Measures, values: Values, row: int) -> Centrality:
    def estimate(name: str) -> float | None:
        given = values[name]
        return None if given is None or np.isnan(given[row]) else float(given[row])

    return Centrality(
        user=measures.ids[row],
        as_of=rfc3339(max(measures.as_of, 0)),
        error_bound=measures.error_bound[0],
        closeness=estimate("closeness"),
        betweenness=estimate("betweenness"),
        **measures.of_user(row),
    )
