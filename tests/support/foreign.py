"""One synthetic social stream in the formats of five other sources, and the events that it must become.

The stream is a list of actions of numbered users on numbered posts. Each source writes them as records of its own form
and ids; `expected` writes the same actions directly as events. People and ids are made up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

Json = dict[str, Any]

START_S = 1_772_366_400
DAY_S = 86_400
DAYS = 8
USERS = 90
REMOVED = {"unfollow": "follow", "unshare": "share"}


class Action(NamedTuple):
    """A user does something: number of the action, kind, time (s), user, and a user or a post; `of` is undone."""

    number: int
    kind: str
    time: float
    user: int
    other: int
    of: int = -1
    reply_to: int = -1


def actions(seed: int, per_day: int = 150) -> list[Action]:
    """Make a stream in which one user a day begins to be shared widely."""
    chance = random.Random(seed)
    made: list[Action] = []
    creators: list[int] = []
    deleted: set[int] = set()
    live: dict[str, list[Action]] = {"follow": [], "share": []}

    def add(kind: str, time: float, user: int, other: int, **more: int) -> None:
        action = Action(len(made), kind, round(time, 3), user, other, **more)
        made.append(action)
        if kind in live:
            live[kind].append(action)

    def post(time: float, user: int, reply_to: int = -1) -> int:
        creators.append(user)
        add("create", time, user, len(creators) - 1, reply_to=reply_to)
        return len(creators) - 1

    for day in range(DAYS):
        begin = START_S + day * DAY_S
        rising = USERS - 1 - day
        times = sorted(begin + chance.random() * DAY_S for _ in range(per_day))
        star = post(times[0], rising)
        for place, time in enumerate(times[1:]):
            user, draw = chance.randrange(USERS), chance.random()
            if draw < 0.25:
                add("follow", time, user, (user + 1 + chance.randrange(USERS - 1)) % USERS)
            elif draw < 0.5 or not place:
                reply = chance.randrange(len(creators)) if chance.random() < 0.2 else -1
                post(time, user, reply)
            elif draw < 0.7:
                add("share", time, user, star)
            elif draw < 0.88:
                add("share", time, user, max(0, len(creators) - 1 - chance.randrange(40)))
            elif draw < 0.95 and (kind := chance.choice(["follow", "share"])) and live[kind]:
                gone = live[kind].pop(chance.randrange(len(live[kind])))
                add(f"un{kind}", time, gone.user, gone.other, of=gone.number)
            elif draw < 0.97:
                old = chance.randrange(len(creators))
                if old not in deleted:
                    deleted.add(old)
                    add("delete", time, creators[old], old, of=old)
    return made


def rfc3339(time: float) -> str:
    """A time as the sources write it, in milliseconds."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Ids(NamedTuple):
    """How a source names users and posts; a post is named by its number and its creator."""

    user: Callable[[int], str]
    post: Callable[[int, int], str]


IDS = {
    "bluesky": Ids(
        lambda user: f"did:plc:{user:024d}", lambda post, user: f"at://did:plc:{user:024d}/app.bsky.feed.post/p{post}"
    ),
    "mastodon": Ids(
        lambda user: f"https://m.example/users/u{user}",
        lambda post, user: f"https://m.example/users/u{user}/statuses/{post}",
    ),
    "github": Ids(lambda user: f"dev{user}", lambda post, user: f"dev{user}/project{post}"),
    "x": Ids(lambda user: str(1_000_000 + user), lambda post, _user: str(5_000_000 + post)),
    "debezium": Ids(str, lambda post, _user: str(70_000 + post)),
}
KINDS = {name: {"follow", "unfollow", "share", "unshare", "create", "delete"} for name in IDS}
KINDS["github"] = {"follow", "share", "create"}
KINDS["x"] = {"share", "unshare", "create", "delete"}
WITHOUT_REPLIES = {"github"}


def creators(stream: list[Action]) -> dict[int, int]:
    """The creator of each post."""
    return {action.other: action.user for action in stream if action.kind == "create"}


def expected(source: str, stream: list[Action]) -> Iterator[Json]:
    """The events of a stream, as they must come from this source's records."""
    ids, creator = IDS[source], creators(stream)
    for action in stream:
        if action.kind not in KINDS[source]:
            continue
        row: Json = {"type": action.kind, "time": action.time, "user": ids.user(action.user)}
        if action.kind.endswith("follow"):
            row["target"] = ids.user(action.other)
        else:
            row["content"] = ids.post(action.other, creator[action.other])
        if action.reply_to >= 0 and source not in WITHOUT_REPLIES:
            row["reply_to"] = ids.post(action.reply_to, creator[action.reply_to])
        yield row


def records(source: str, stream: list[Action]) -> Iterator[tuple[float, Json]]:
    """The records of a source with the times of their arrival; some of them are about nothing that counts."""
    write, creator = _WRITERS[source], creators(stream)
    for action in stream:
        if action.kind in KINDS[source]:
            yield action.time, write(action, creator, IDS[source])
        if action.number % 10 == 0:
            yield action.time, _OTHER[source](action, IDS[source])


_COLLECTIONS = {"follow": "app.bsky.graph.follow", "share": "app.bsky.feed.repost", "create": "app.bsky.feed.post"}


def _bluesky(action: Action, creator: dict[int, int], ids: Ids) -> Json:
    kind = {"unfollow": "follow", "unshare": "share", "delete": "create"}.get(action.kind, action.kind)
    removed = kind != action.kind
    key = f"p{action.other}" if kind == "create" else f"r{action.of if removed else action.number}"
    commit: Json = {
        "rev": f"3l{action.number}", "operation": "delete" if removed else "create",
        "collection": _COLLECTIONS[kind], "rkey": key,
    }  # fmt: skip
    if not removed:
        record: Json = {"$type": _COLLECTIONS[kind], "createdAt": "0001-01-01T00:00:00Z"}
        if kind == "follow":
            record["subject"] = ids.user(action.other)
        elif kind == "share":
            record["subject"] = {"cid": "c", "uri": ids.post(action.other, creator[action.other])}
        elif action.reply_to >= 0:
            parent = {"cid": "c", "uri": ids.post(action.reply_to, creator[action.reply_to])}
            record |= {"text": "…", "reply": {"parent": parent, "root": parent}}
        commit |= {"record": record, "cid": "bafy"}
    return {"did": ids.user(action.user), "time_us": round(action.time * 1e6), "kind": "commit", "commit": commit}


def _mastodon(action: Action, creator: dict[int, int], ids: Ids) -> Json:
    actor = ids.user(action.user)
    number = action.of if action.kind in REMOVED else action.number
    about: Json = {"@context": "https://www.w3.org/ns/activitystreams", "actor": actor}
    identity = f"{actor}#activities/{number}"
    if action.kind.endswith("follow"):
        done: Json = {"id": identity, "type": "Follow", "actor": actor, "object": ids.user(action.other)}
    else:
        post = ids.post(action.other, creator[action.other])
        done = {"id": identity, "type": "Announce", "actor": actor, "object": post}
    if action.kind in REMOVED:
        # Neither has a time of its own; every second one names only the activity.
        return {**about, "id": f"{actor}#undo/{action.number}", "type": "Undo",
                "object": done if action.number % 2 else identity}  # fmt: skip
    if action.kind == "follow":
        return {**about, **done}
    if action.kind == "share":
        return {**about, **done, "published": rfc3339(action.time)}
    if action.kind == "delete":
        gone = {"id": post, "type": "Tombstone"} if action.number % 2 else post
        return {**about, "id": f"{post}#delete", "type": "Delete", "object": gone}
    note: Json = {"id": post, "type": "Note", "content": "…", "published": rfc3339(action.time), "inReplyTo": None}
    if action.reply_to >= 0:
        note["inReplyTo"] = ids.post(action.reply_to, creator[action.reply_to])
    return {**about, "id": f"{post}/activity", "type": "Create", "published": rfc3339(action.time), "object": note}


def _github(action: Action, creator: dict[int, int], ids: Ids) -> Json:
    event: Json = {"id": str(action.number), "actor": {"id": action.user, "login": ids.user(action.user)},
                   "public": True, "created_at": rfc3339(action.time)}  # fmt: skip
    if action.kind == "follow":
        return {**event, "type": "FollowEvent", "payload": {"target": {"login": ids.user(action.other)}},
                "repo": {"id": 0, "name": ""}}  # fmt: skip
    event["repo"] = {"id": action.other, "name": ids.post(action.other, creator[action.other])}
    if action.kind == "create":
        return {**event, "type": "CreateEvent", "payload": {"ref": None, "ref_type": "repository"}}
    if action.number % 3:
        return {**event, "type": "WatchEvent", "payload": {"action": "started"}}
    return {**event, "type": "ForkEvent", "payload": {"forkee": {"full_name": f"{ids.user(action.user)}/fork"}}}


def _x(action: Action, creator: dict[int, int], ids: Ids) -> Json:
    user, retweet = ids.user(action.user), str(9_000_000 + (action.of if action.kind == "unshare" else action.number))
    if action.kind in {"unshare", "delete"}:
        gone = retweet if action.kind == "unshare" else ids.post(action.other, 0)
        return {"data": {"delete": {"tweet": {"id": gone, "author_id": user}, "event_at": rfc3339(action.time)}}}
    tweet: Json = {"author_id": user, "created_at": rfc3339(action.time), "text": "…"}
    if action.kind == "share":
        tweet |= {"id": retweet, "referenced_tweets": [{"type": "retweeted", "id": ids.post(action.other, 0)}]}
    else:
        tweet["id"] = ids.post(action.other, 0)
        if action.reply_to >= 0:
            tweet["referenced_tweets"] = [{"type": "replied_to", "id": ids.post(action.reply_to, 0)}]
    return {"data": tweet, "matching_rules": [{"id": "1", "tag": "all"}]}


def _debezium(action: Action, _creator: dict[int, int], ids: Ids) -> Json:
    kind = {"unfollow": "follow", "unshare": "share", "delete": "create"}.get(action.kind, action.kind)
    table = {"follow": "follows", "share": "reposts", "create": "posts"}[kind]
    removed = kind != action.kind
    key = int(ids.post(action.other, 0)) if kind == "create" else action.of if removed else action.number
    row: Json = {"id": key, "__table": table, "__op": "d" if removed else "c", "__deleted": str(removed).lower(),
                 "__source_ts_ms": round(action.time * 1000)}  # fmt: skip
    columns: Json = {
        "follow": {"follower_id": action.user, "followee_id": action.other},
        "share": {"user_id": action.user, "post_id": 70_000 + action.other},
        "create": {"author_id": action.user, "reply_to_id": 70_000 + action.reply_to if action.reply_to >= 0 else None},
    }[kind]
    return row | (dict.fromkeys(columns) if removed else columns)


_WRITERS = {"bluesky": _bluesky, "mastodon": _mastodon, "github": _github, "x": _x, "debezium": _debezium}
_OTHER: dict[str, Callable[[Action, Ids], Json]] = {
    "bluesky": lambda action, ids: {"did": ids.user(action.user), "time_us": 1, "kind": "commit", "commit": {
        "operation": "create", "collection": "app.bsky.feed.like", "rkey": "x", "record": {"subject": {"uri": "at://x"}}}},
    "mastodon": lambda action, ids: {"type": "Like", "actor": ids.user(action.user), "object": "https://m.example/1"},
    "github": lambda action, ids: {"type": "PushEvent", "actor": {"login": ids.user(action.user)}, "created_at":
                                   rfc3339(action.time), "repo": {"name": "a/b"}, "payload": {"size": 1}},
    "x": lambda action, ids: {"data": {"favorite": {"id": str(action.number), "user": ids.user(action.user)}}},
    "debezium": lambda action, _ids: {"id": action.number, "__table": "users", "__op": "u", "__deleted": "false",
                                      "__source_ts_ms": 1},
}  # fmt: skip
