"""The alert rule and its outcomes by naive code: every boundary is computed from the set of the events before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from graphstate.memory.labels import read_labels
from graphstate.types import Kind, Mutation, source_hash
from streams.settings.alert_topics import NONE as NO_LABELS
from streams.settings.alert_topics import ContentLabels
from streams.shard.alerts import alert_rule
from streams.shard.alerts.alert_rule import AlertRule, alert_id

NONE = -(1 << 60)
NOBODY = ""
"""In place of a top twentieth where there are too few authors for one."""


@dataclass
class NaiveAlerts:
    """Alerts and outcomes.

    Attributes:
        ids: Ids of the alerts by (user, boundary).
        outcomes: Outcome and lead (s) by alert id.
        details: Details by alert id: how long the rise has gone on (s), the named new sharers, the
            content with most shares.
        missed: Number of authors who entered the top twentieth without an alert.
    """

    ids: dict[tuple[str, int], str] = field(default_factory=dict)
    outcomes: dict[str, tuple[str, float]] = field(default_factory=dict)
    details: dict[str, tuple[float, tuple[str, ...], str]] = field(default_factory=dict)
    missed: int = 0


def labels_of(events: Iterable[Mutation]) -> dict[str, ContentLabels]:
    """Return the labels of contents: those of the earliest create, of several for it the smallest text."""
    events = list(events)
    created = {event.other: (1 << 62, "") for event in events if event.kind == Kind.CREATE}
    for event in events:
        if event.kind == Kind.CREATE:
            created[event.other] = min(created[event.other], (event.time, event.user))
    texts: dict[str, str] = {}
    for event in events:
        if event.kind == Kind.LABELS and created.get(event.other) == (event.time, event.user):
            texts[event.other] = min(event.extra or "", texts.get(event.other, event.extra or ""))
    return {content: ContentLabels(*read_labels(text)) for content, text in texts.items()}


def credited(events: Iterable[Mutation]) -> tuple[list[tuple[int, str, str, str]], Counter[str]]:
    """Return the credited shares as (time, sharer, author, content), and the number of contents by author."""
    events = list(events)
    forgotten, deleted, unshared = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for kind, time, user, other, _, _ in events:
        if kind == Kind.FORGET:
            forgotten[user] = max(forgotten.get(user, NONE), time)
        elif kind == Kind.DELETE:
            deleted[other] = max(deleted.get(other, NONE), time)
        elif kind == Kind.UNSHARE:
            unshared[user, other] = max(unshared.get((user, other), NONE), time)
    creates: dict[str, tuple[int, str, str]] = {}
    shares: dict[tuple[str, str], int] = {}
    for kind, time, user, other, extra, _ in events:
        if time <= forgotten.get(user, NONE) or time <= deleted.get(other, NONE):
            continue
        if kind == Kind.CREATE:
            creates[other] = min(creates.get(other, (1 << 62, "", "")), (time, user, extra or ""))
        elif kind == Kind.SHARE and time > unshared.get((user, other), NONE):
            shares[user, other] = min(shares.get((user, other), 1 << 62), time)
    found = [
        (time, user, creates[content][1], content) for (user, content), time in shares.items() if content in creates
    ]
    return found, Counter(user for _, user, _ in creates.values())


def _entry(shares: list[int], part: float) -> int:
    place = max(1, int(part * len(shares)))
    return max(1, sorted(shares, reverse=True)[place - 1]) if shares else 1


def judged(events: list[Mutation], rule: AlertRule, end: int) -> NaiveAlerts:
    """Judge every boundary up to `end` (µs), with the events before each boundary only."""
    result = NaiveAlerts()
    if not events:
        return result
    fired: list[tuple[str, int]] = []
    tops: list[tuple[int, set[str]]] = []
    ordered = sorted(events, key=lambda mutation: mutation.time)
    forgets = [(mutation.user, mutation.time) for mutation in events if mutation.kind == Kind.FORGET]
    for boundary in range((ordered[0].time // rule.step_us + 1) * rule.step_us, end + 1, rule.step_us):
        before = [event for event in ordered if event.time < boundary]
        since = boundary - rule.window_us
        shares, authors = credited(before)
        level, recent, velocity = Counter[str](), Counter[str](), Counter[str]()
        first: dict[tuple[str, str], int] = {}
        for time, sharer, author, _ in shares:
            first[sharer, author] = min(first.get((sharer, author), time), time)
            if time >= since:
                recent[author] += 1
                velocity[author] += int(rule.weights[(boundary - 1 - time) // rule.epoch_us])
            else:
                level[author] += 1
        new = Counter(author for (_, author), time in first.items() if time > since)
        active = [count for count in recent.values() if count]
        established = _entry([level[author] for author in authors], 0.1)
        bar = _entry(active, alert_rule.ENTRY_SHARE) if int(alert_rule.ENTRY_SHARE * len(active)) else 0
        top = {author for author in recent if bar and recent[author] >= bar}
        valid = _valid(fired, forgets, since, boundary)
        if active:
            tops.append((boundary, {author for author in top if level[author] < established} if bar else {NOBODY}))
            called = {user for user, _ in valid}
            result.missed += len(_entering(tops, forgets, rule) - called)
        _end(result, fired, forgets, boundary, rule, top)
        quiet = {user for user, at in valid if at > since}
        candidates = [
            author
            for author in authors
            if author not in quiet and level[author] < established and recent[author] >= rule.min_new_sharers
            and velocity[author] > 0 and not (bar and recent[author] >= bar)
            and new[author] >= rule.min_new_sharers
            and not (rule.floor and velocity[author] * rule.floor < bar * 256)
        ]  # fmt: skip
        candidates.sort(key=lambda author: (-velocity[author], level[author], source_hash(author)))
        shared = {
            author: sorted((time, content) for time, _, user, content in shares if user == author and time >= since)
            for author in candidates
        }
        labels, picked = labels_of(before), list[str]()
        for scope in rule.scopes:
            about = (
                author
                for author in candidates
                if author not in picked and scope.holds(labels.get(_most_shared(shared[author]), NO_LABELS))
            )
            picked += list(islice(about, scope.budget))
        for author in picked:
            fired.append((author, boundary))
            name = result.ids[author, boundary] = alert_id(author, boundary)
            sharers = [sharer for (sharer, user), time in first.items() if user == author and time > since]
            received = recent + level
            sharers.sort(key=lambda user: (-received[user] / max(1, authors[user]), -received[user], source_hash(user)))
            lately = {user for user, time in forgets if since <= time < boundary}
            kept = [user for user in sharers if user not in lately and user != author]
            own = shared[author]
            rising_s = (boundary - own[len(own) // 4][0]) / 1e6
            result.details[name] = rising_s, tuple(kept[:5]), _most_shared(own)
    return result


def _valid(
    fired: list[tuple[str, int]], forgets: list[tuple[str, int]], since: int, boundary: int
) -> list[tuple[str, int]]:
    """Return the alerts from a time on. A forgotten user starts again: its alerts up to then prevent no other."""
    return [
        (user, at)
        for user, at in fired
        if at >= since and not any(user == name and at <= time < boundary for name, time in forgets)
    ]


def _entering(tops: list[tuple[int, set[str]]], forgets: list[tuple[str, int]], rule: AlertRule) -> set[str]:
    """Return who enters at the last of the boundaries with active authors, with the top twentieth of each so far.

    Computed from the first boundary on each time; without a top twentieth a boundary changes nothing.
    """
    inside: set[str] = set()
    entered: dict[str, int] = {}
    before = NONE
    entering: set[str] = set()
    for boundary, top in tops:
        entering = set()
        if top == {NOBODY}:
            continue
        gone = {user for user, time in forgets if before <= time < boundary}
        entered = {
            user: at
            for user, at in entered.items()
            if at > boundary - rule.window_us
            and not any(name == user and at <= time < boundary for name, time in forgets)
        }
        entering = top - (inside - gone) - entered.keys()
        entered |= dict.fromkeys(entering, boundary)
        inside, before = top, boundary
    return entering if tops[-1][0] >= tops[0][0] + rule.window_us else set()


def _most_shared(shares: list[tuple[int, str]]) -> str:
    """Return the content with most of some shares (time, content); ties: the latest share, then the larger hash."""
    counts, last = Counter(content for _, content in shares), {content: time for time, content in shares}
    return max(counts, key=lambda content: (counts[content], last[content], source_hash(content)))


def _end(
    result: NaiveAlerts, fired: list[tuple[str, int]], forgets: list[tuple[str, int]], boundary: int, rule: AlertRule,
    top: set[str],
) -> None:  # fmt: skip
    for user, at in fired:
        name = alert_id(user, at)
        if name in result.outcomes or at >= boundary:
            continue
        if user in top and boundary <= at + rule.window_us:
            result.outcomes[name] = "confirmed", (boundary - at) / 1e6
        elif boundary >= at + rule.window_us:
            result.outcomes[name] = "expired", rule.window_us / 1e6
