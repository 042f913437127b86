"""The questions of the query language as types, and the words that a process can answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True)
class PredictReach:
    """How many people will share a user's next post.

    Attributes:
        user: Id of the user.
        within_s: Horizon in seconds; None for that of the artifact in use.
        topic: The topic of the post; empty for any.
    """

    user: str
    within_s: int | None = None
    topic: str = ""


@dataclass(frozen=True)
class PredictShare:
    """How likely users will share a content.

    Attributes:
        content: Id of the content.
        users: Ids of the users.
        within_s: Horizon in seconds; None for that of the artifact.
    """

    content: str
    users: tuple[str, ...]
    within_s: int | None = None


@dataclass(frozen=True)
class Rank:
    """The first users in a ranking.

    Attributes:
        by: The measure.
        limit: Number of users.
        tier: Only users of this tier; empty for all.
        topic: Only users with posts on this topic; empty for all.
    """

    by: str
    limit: int = 20
    tier: str = ""
    topic: str = ""


@dataclass(frozen=True)
class Compare:
    """Two users side by side."""

    a: str
    b: str


@dataclass(frozen=True)
class Explain:
    """The parts of a user's score."""

    user: str


@dataclass(frozen=True)
class Show:
    """What is known now.

    Attributes:
        what: What is shown.
        node: Id of the user or content; empty for the others.
        limit: Number of alerts.
    """

    what: Literal["user", "content", "alerts", "live", "seeds", "centrality"]
    node: str = ""
    limit: int = 20


Question = PredictReach | PredictShare | Rank | Compare | Explain | Show


class Vocabulary(NamedTuple):
    """The names that a query may use.

    Attributes:
        measures: Measures by which a worker ranks users.
        of_analyst: Measures by which the analyst ranks users.
        tiers: Names of the tiers.
    """

    measures: tuple[str, ...]
    of_analyst: tuple[str, ...]
    tiers: tuple[str, ...]
