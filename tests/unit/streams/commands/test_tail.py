"""Lines of what the analyst publishes."""

from __future__ import annotations

import json

from streams.commands.tail import line

AS_OF = "2020-01-02T03:04:05.000000Z"


def test_lines_of_the_analysts_topics() -> None:
    """Each value is one line of text with its key, and as JSON it stays as it is; a tombstone is named."""
    centrality = {"user": "ana", "pagerank": 0.125, "core": 3, "followers": 10, "following": 2, "as_of": AS_OF}
    community = {"user": "ana\u001b", "community": "c7", "bridge": 0.5, "as_of": AS_OF}
    seeds = {"list": "ic", "seeds": ["ana", "bob"], "expected_reach": 12.5, "as_of": AS_OF, "guarantee": 0.81}
    shown = [
        line(name, "key", json.dumps(value).encode(), as_json=False)
        for name, value in (("centrality", centrality), ("community", community), ("seeds", seeds))
    ]
    assert all(text.startswith("2020-01-02T03:04:05  ") for text in shown)
    assert shown[0].endswith("pagerank 1.25e-01  core    3  followers     10  following      2  ana")
    assert "community c7        bridge 0.50  ana" in shown[1]
    assert "\u001b" not in shown[1]
    assert shown[2].endswith("list ic  12.5 distinct people, at least 0.81 of the best possible  ana bob")
    assert json.loads(line("seeds", "ic", json.dumps(seeds).encode(), as_json=True)) == seeds
    assert line("centrality", "ana", None, as_json=False) == "ana  forgotten"


def test_lines_of_scores_by_topic() -> None:
    """A value has topic and user; a tombstone names both."""
    value = {"topic": "art", "user": "ana", "reach": 3.5, "percentile": 60.0, "as_of": AS_OF, "posts": 2, "sharers": 9}
    shown = line("topic", "art\x1fana", json.dumps(value).encode(), as_json=False)
    assert shown == "2020-01-02T03:04:05  reach     3.50  percentile  60.0  posts    2  sharers     9  art  ana"
    assert line("topic", "art\x1fana", None, as_json=False) == "ana  no post on art any more"
    gone = json.loads(line("topic", "art\x1fana", None, as_json=True))
    assert gone == {"topic": "art", "user": "ana", "gone": True}
