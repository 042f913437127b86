"""The demo's stream as a story: people with names, topics, an early breakout, and event time that ends now.

Each function takes rows of the input topics in order of time and yields them in order of time.
"""

from __future__ import annotations

import heapq
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any

Row = dict[str, Any]

_FIRST = """
ada alma amir anya aziz bea bilal boris carla chen chidi cleo dana diego elif emre esra fatou felix finn gita hana
hugo ida ines ivan jada jonas juno kaya kofi lale leila lena luca mara mateo mei mina nadia nils noor olga omar
paula pia quinn ravi rosa sami sara selin sofia tariq theo uma vera wen yara
"""
_LAST = """
abbas adler aksoy alves asante bauer bello berg blum bosch castro costa cruz danso diaz dogan duarte eze falk farah
fischer garcia haas habib hansen ito jansen kaur keita khan kim kovac kruger lang lima lopez mandal meyer mori
mensah nagy nakata novak okafor olsen osei patel petrov rao reyes rossi sato silva singh tanaka torres vogel weber
yilmaz
"""
_TOPICS = """
baking birds chess climate cycling football gardening gaming history hiking jazz knitting movies photography poetry
robotics running sailing science travel
"""
FIRST, LAST, TOPICS = _FIRST.split(), _LAST.split(), _TOPICS.split()
DAY_S = 86_400
HOUR_S = 3_600
BREAKOUT_SHARES = 70
EARLY_SHARES = 10
_ID = re.compile(r"u(\d+)(?:g(\d+))?")


def name_of(user: str) -> str:
    """Return the name of a generated user, such as `ada.okafor`; the same id always gets the same one."""
    found = _ID.fullmatch(user)
    if found is None:
        return user
    number, generation = int(found[1]), found[2]
    first, family = number % len(FIRST), number // len(FIRST)
    name = f"{FIRST[first]}.{LAST[(family + 7 * first) % len(LAST)]}"
    # More users than pairs of names get a number, and so does a user that takes the row of an erased one.
    again = family // len(LAST)
    return f"{name}{again or ''}{f'.{generation}' if generation else ''}"


def topic_of(community: str) -> str:
    """Return the topic of a generated community."""
    number = int(community[1:])
    return TOPICS[number % len(TOPICS)] + (str(number // len(TOPICS)) if number >= len(TOPICS) else "")


def named(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows with names of people, topics for communities, and a topic for each post."""
    names: dict[str, str] = {}
    for row in rows:
        changed = dict(row)
        for field in ("user", "target", "via"):
            if field in row:
                if row[field] not in names:
                    names[row[field]] = name_of(row[field])
                changed[field] = names[row[field]]
        if "community" in row:
            changed["community"] = topic_of(row["community"])
        if row["type"] == "create":
            changed["topics"] = [changed["community"]]
        for field in ("content", "reply_to"):
            if field in row:
                changed[field] = f"post-{row[field][1:]}"
        yield changed


def until_now(rows: Iterable[Row], clock: Callable[[], float] = time.time) -> Iterator[Row]:
    """Yield rows whose time is not after the clock: once event time has reached it, events happen now."""
    for row in rows:
        now = clock()
        yield row if row["time"] <= now else {**row, "time": round(now, 3)}


def breakout(live: Iterator[Row], history: list[Row], seed: int = 0) -> Iterator[Row]:
    """Yield the live rows with a breakout: a quiet author writes a post that spreads ever faster for a day.

    Args:
        live: The live rows.
        history: The rows before them; the author has a post, and few shares of it, in them.
        seed: Chooses the author.
    """
    first = next(live, None)
    if first is None:
        return
    planned = _breakout(first["time"], history, Random(seed))
    yield from heapq.merge([first], planned, live, key=lambda row: float(row["time"]))


def _breakout(begin: float, history: list[Row], random: Random) -> list[Row]:
    author_of = {row["content"]: row["user"] for row in history if row["type"] == "create"}
    shares = Counter(author_of.get(row["content"]) for row in history if row["type"] == "share")
    gone = {row["user"] for row in history if row["type"] == "forget"}
    people = sorted({row["user"] for row in history if row["type"] in {"share", "follow"}} - gone)
    quiet = sorted(author for author in set(author_of.values()) - gone if shares[author] <= 2)
    if not quiet or len(people) < 2 * BREAKOUT_SHARES:
        return []
    author = random.choice(quiet)
    topics = next(row.get("topics", []) for row in history if row["type"] == "create" and row["user"] == author)
    content = "post-breakout"
    rows: list[Row] = [
        {"type": "create", "time": begin + 9.5 * HOUR_S, "user": author, "content": content, "topics": topics}
    ]
    sharers = random.sample([user for user in people if user != author], BREAKOUT_SHARES)
    for k, user in enumerate(sharers):
        # The first shares come just before the second judgement of alerts, when the author is not among the most
        # shared yet; the others follow ever faster, and the author is among them half a day later.
        early = k < EARLY_SHARES
        part = k / EARLY_SHARES if early else ((k - EARLY_SHARES) / (BREAKOUT_SHARES - EARLY_SHARES)) ** 0.5
        hours = 10 + 1.9 * part if early else 12.1 + 12 * part
        row = {"type": "share", "time": begin + HOUR_S * hours, "user": user, "content": content}
        rows.append(row if k < 4 else row | {"via": sharers[random.randrange(k)]})
    return rows
