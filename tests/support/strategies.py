"""Random histories of all event types that collide: few ids, few times, ties and long jumps."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from graphstate.memory.labels import label_text
from graphstate.types import GraphSpec, Kind, Mutation
from tests.support.graphs import DAY, HOUR, MINUTE, START

# One id is a user, a content and a community at once, and ids are not all plain ASCII.
USERS = ("a", "b", "c", "d", "é", "東")
CONTENTS = ("x", "y", "z", "a")
COMMUNITIES = ("k", "a")

JUMPS = (1, 14, 15, 16, 59, 90, 6 * HOUR, DAY, 2 * DAY, 9 * DAY, 40 * DAY)
"""Minutes between clusters of events: around a tick, around an epoch of each ring, around the ends of rings."""

SPECS = (
    GraphSpec(floor=1, window=2),
    GraphSpec(floor=1, window=1, horizon_s=60, tick_s=60),
    GraphSpec(floor=2, window=0, horizon_s=86_400),
    GraphSpec(),
)

RETAINED = (
    GraphSpec(floor=1, window=2, retention_s=86_400, lateness_s=3_600),
    GraphSpec(floor=1, window=0, retention_s=3_600, lateness_s=0, horizon_s=1_800),
    GraphSpec(floor=2, window=3, retention_s=10 * 86_400, lateness_s=2 * 86_400, tick_s=3_600),
    GraphSpec(floor=1, window=2, retention_s=60, lateness_s=30, horizon_s=60),
)

_OTHER = {
    Kind.FOLLOW: USERS, Kind.UNFOLLOW: USERS, Kind.JOIN: COMMUNITIES, Kind.LEAVE: COMMUNITIES, Kind.FORGET: ("",),
    Kind.SHARE: CONTENTS, Kind.UNSHARE: CONTENTS, Kind.CREATE: CONTENTS, Kind.DELETE: CONTENTS, Kind.LABELS: CONTENTS,
}  # fmt: skip

LABELS = (label_text("p", "k"), label_text("pq"), label_text("", "a"))

# Kinds drawn more often: shares and creates have most effects, the others undo them.
_KINDS = (
    [Kind.SHARE] * 8 + [Kind.CREATE] * 4 + [Kind.FOLLOW] * 3 + [Kind.UNFOLLOW, Kind.JOIN, Kind.LEAVE]
    + [Kind.UNSHARE] * 2 + [Kind.DELETE, Kind.FORGET]
)  # fmt: skip


@st.composite
def times(draw: st.DrawFn) -> list[int]:
    """Draw the few times (µs, ascending) of the events of a history."""
    clusters, time = [], START
    for jump in draw(st.lists(st.sampled_from(JUMPS), min_size=1, max_size=6)):
        clusters.extend([time, time + 1, time + MINUTE - 1])
        time += jump * MINUTE
    return clusters


@st.composite
def mutations(draw: st.DrawFn, clusters: list[int]) -> Mutation:
    """Draw one mutation at one of the times."""
    kind = draw(st.sampled_from(_KINDS))
    time, user, other = (
        draw(st.sampled_from(clusters)),
        draw(st.sampled_from(USERS)),
        draw(st.sampled_from(_OTHER[kind])),
    )
    extra = None
    if kind == Kind.SHARE:
        extra = draw(st.none() | st.sampled_from(USERS))
    if kind == Kind.CREATE:
        extra = draw(st.none() | st.sampled_from(CONTENTS))
    return Mutation(int(kind), time, user, other, extra)


@st.composite
def labeled(draw: st.DrawFn, clusters: list[int]) -> list[Mutation]:
    """Draw a create with labels, in either order."""
    time, user, content = (draw(st.sampled_from(values)) for values in (clusters, USERS, CONTENTS))
    both = [
        Mutation(int(Kind.CREATE), time, user, content),
        Mutation(int(Kind.LABELS), time, user, content, draw(st.sampled_from(LABELS))),
    ]
    return draw(st.permutations(both))


@st.composite
def stated(draw: st.DrawFn, clusters: list[int]) -> list[Mutation]:
    """Draw a share with author and created: the create that it states, and the share."""
    moments, people = st.sampled_from(clusters), st.sampled_from(USERS)
    content, via = draw(st.sampled_from(CONTENTS)), draw(st.none() | people)
    create = Mutation(int(Kind.CREATE), draw(moments), draw(people), content)
    return [create, Mutation(int(Kind.SHARE), draw(moments), draw(people), content, via)]


@st.composite
def histories(draw: st.DrawFn, max_size: int = 40) -> list[Mutation]:
    """Draw a log in random order."""
    clusters = draw(times())
    alone = mutations(clusters).map(lambda mutation: [mutation])
    drawn = st.one_of(alone, alone, alone, stated(clusters), labeled(clusters))
    events = draw(st.lists(drawn, min_size=1, max_size=max_size))
    return [mutation for event in events for mutation in event]


@st.composite
def logs(draw: st.DrawFn, max_size: int = 40) -> list[Mutation]:
    """Draw a log mostly in the order of its times."""
    log = sorted(draw(histories(max_size)), key=lambda mutation: mutation.time)
    late = draw(st.sets(st.integers(0, len(log) - 1), max_size=5))
    return [log[i] for i in range(len(log)) if i not in late] + [log[i] for i in sorted(late)]


@st.composite
def splits(draw: st.DrawFn, log: list[Mutation]) -> list[list[Mutation]]:
    """Draw a log cut into micro-batches, empty ones included."""
    cuts = sorted(draw(st.lists(st.integers(0, len(log)), max_size=5)))
    return [log[start:end] for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True)]


@st.composite
def rearranged(draw: st.DrawFn, log: list[Mutation]) -> list[Mutation]:
    """Draw the same events in another order, some of them twice."""
    return draw(st.permutations(log + draw(st.lists(st.sampled_from(log), max_size=10))))


STEPS_US = (0, 0, 1, MINUTE, MINUTE, 7 * MINUTE, 3 * HOUR * MINUTE)


def history(seed: int, events: int, users: int = 40, contents: int = 60) -> list[Mutation]:
    """Return a larger random log of a seed, mostly in the order of its times."""
    rng, labels = random.Random(seed), random.Random(seed)
    people, things = [f"u{i}" for i in range(users)], [f"c{i}" for i in range(contents)]
    pools = {USERS: people, CONTENTS: things, COMMUNITIES: ["k1", "k2", "k3"], ("",): [""]}
    time, log = START, []
    for _ in range(events):
        time += rng.choice(STEPS_US)
        kind = rng.choice(_KINDS)
        extra = None
        if kind in (Kind.SHARE, Kind.CREATE) and rng.random() < 0.4:
            extra = rng.choice(people if kind == Kind.SHARE else things)
        # Low numbers are drawn more often, so that some windows are full and others almost empty.
        user, pool = people[int(users * rng.random() ** 2)], pools[_OTHER[kind]]
        other = pool[int(len(pool) * rng.random() ** 2)]
        late = rng.choice((0, 0, 0, 0, HOUR, DAY)) * MINUTE
        log.append(Mutation(int(kind), time - late, user, other, extra))
        if kind == Kind.CREATE and labels.random() < 0.5:
            log.append(Mutation(int(Kind.LABELS), time - late, user, other, labels.choice(LABELS)))
    return log
