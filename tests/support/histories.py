"""Generated histories: rows of events of all types on a small graph; equal seeds generate equal rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

NOW_S = 1_700_000_000
SPAN_S = 259_200
LATE_S = 600
USERS, CONTENTS, COMMUNITIES = 1_000, 3_000, 20
TYPES = ["share"] * 60 + ["create"] * 20 + ["follow"] * 10 + ["join", "leave", "unfollow", "unshare", "delete"]
FORGETS = 0.002


def history(rng: random.Random, count: int, *, users: int = USERS, links: bool = False) -> Iterator[dict[str, Any]]:
    """Return events of all types over three days up to `NOW_S`, out of order; links adds via, reply_to, topics."""
    for number in range(count):
        second = NOW_S - SPAN_S + number * SPAN_S // count - rng.randrange(LATE_S)
        type_ = "forget" if rng.random() < FORGETS else rng.choice(TYPES)
        content = f"c{int(rng.paretovariate(0.6)) % CONTENTS}"
        event: dict[str, Any] = {"type": type_, "time": second, "user": f"u{int(rng.paretovariate(0.5)) % users}"}
        if type_ in {"share", "unshare", "create", "delete"}:
            event["content"] = content
        elif type_ in {"follow", "unfollow"}:
            event["target"] = f"u{rng.randrange(users)}"
        elif type_ in {"join", "leave"}:
            event["community"] = f"k{rng.randrange(COMMUNITIES)}"
        if links and type_ == "share" and rng.random() < 0.4:
            event["via"] = f"u{int(rng.paretovariate(0.5)) % users}"
        elif links and type_ == "create" and rng.random() < 0.2:
            event["reply_to"] = f"c{int(rng.paretovariate(0.6)) % CONTENTS}"
        if links and type_ == "create" and number % 3:
            event |= {"topics": [f"t{number % 7}", f"t{number % 5}"], "community": f"k{number % COMMUNITIES}"}
        yield event
