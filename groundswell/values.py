"""The values of the score, topic, alert and outcome topics as a consumer reads them: the types of `groundswell.client`.

`streams/messages/outputs.py` writes them; these types read them, and the JSON Schemas of `docs/contract` are made from
them. Unknown fields are ignored, so that a later version may add some.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

UserId = Annotated[str, Meta(min_length=1, description="User id.")]
Reach = Annotated[float, Meta(ge=0, description="Distinct people expected to share the user's next post.")]
Percentile = Annotated[float, Meta(ge=0, le=100, description="Rank among all live users.")]
AsOf = Annotated[datetime, Meta(tz=True, description="Event time.")]
Version = Annotated[str, Meta(pattern="^[0-9a-f]{12}$", description="First 12 hex digits of the artifact's SHA-256.")]
AlertId = Annotated[
    str, Meta(min_length=1, description="The same whenever the same events are read, so that repeats can be dropped.")
]


class Score(Struct, frozen=True):
    """The newest score of a user."""

    user: UserId
    reach: Reach
    percentile: Percentile
    as_of: AsOf
    model: Version


class TopicScore(Struct, frozen=True):
    """What a user is on a topic; without a value: the user has no post on it any more, or was forgotten."""

    topic: Annotated[str, Meta(min_length=1, description="Topic of the user's posts.")]
    user: UserId
    reach: Annotated[
        float, Meta(ge=0, description="Reach on the topic: the user's posts on it, and its reach as a prior.")
    ]
    percentile: Annotated[
        float, Meta(ge=0, le=100, description="Rank of that reach among the reach of all live users.")
    ]
    as_of: AsOf
    model: Version
    posts: Annotated[int, Meta(ge=1, description="The user's posts on the topic that the state holds.")]
    sharers: Annotated[int, Meta(ge=0, description="Sharers of these posts within the horizon, added up.")]


class Alert(Struct, frozen=True):
    """A user whose shares are rising."""

    alert: AlertId
    user: UserId
    kind: Literal["emerging"]
    as_of: AsOf
    velocity: Annotated[float, Meta(description="Shares received, weighted by age.")]
    level: Annotated[int, Meta(ge=0, description="Shares received before the alert window.")]
    reach: Reach
    percentile: Percentile
    new_sharers: Annotated[int, Meta(ge=0, description="Users who shared this user for the first time in the window.")]
    content: Annotated[str | None, Meta(description="The content with the most recent shares.")]
    model: Version
    rising_s: Annotated[
        float, Meta(ge=0, description="Seconds of event time in which the newest three quarters of the shares came.")
    ] = 0.0
    sharers: Annotated[
        tuple[str, ...], Meta(description="The new sharers whose own posts were shared most, at most five.")
    ] = ()
    topics: Annotated[tuple[str, ...], Meta(description="Topics of the content.")] = ()


class Outcome(Struct, frozen=True):
    """What became of an alert."""

    alert: AlertId
    user: UserId
    outcome: Literal["confirmed", "expired"]
    as_of: AsOf
    lead_s: Annotated[float, Meta(ge=0, description="Seconds of event time from the alert to the outcome.")]


decode_score = msgspec.json.Decoder(Score).decode
decode_topic_score = msgspec.json.Decoder(TopicScore).decode
decode_alert = msgspec.json.Decoder(Alert).decode
decode_outcome = msgspec.json.Decoder(Outcome).decode
