"""GitHub's public events (the events API, GH Archive): a repository is the content, a star or a fork shares it.

A star does not name when the repository was created, so the repository counts as created when it is first seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streams.connect.memory import Memory

_SHARES = {"WatchEvent", "ForkEvent"}


def events(record: dict[str, Any], memory: Memory) -> Iterator[dict[str, Any]]:
    """Yield the events of one event of GitHub."""
    kind, user, payload = record["type"], record["actor"]["login"], record.get("payload", {})
    about = {"time": record["created_at"], "user": user}
    if kind == "FollowEvent":
        yield {"type": "follow", **about, "target": payload["target"]["login"]}
        return
    repository = record["repo"]["name"]
    created = kind == "PublicEvent" or (kind == "CreateEvent" and payload.get("ref_type") == "repository")
    if (created or kind in _SHARES) and memory.first(repository):
        yield {"type": "create", **about, "user": repository.partition("/")[0], "content": repository}
    if kind in _SHARES:
        yield {"type": "share", **about, "content": repository}
    elif kind == "ReleaseEvent" and payload.get("action") == "published":
        yield {"type": "create", **about, "content": f"{repository}@{payload['release']['tag_name']}"}
