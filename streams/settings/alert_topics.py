"""Setting: what alerts are about, any content or contents with some topics or communities, with a budget for each.

An alert is about the content behind the rise, so its topics are those that the create of that content named.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

ANY = "*"
TOPIC, COMMUNITY = "topic:", "community:"
BUDGET_MAX = 1_000


class ContentLabels(NamedTuple):
    """Community (None: none) and topics of a content."""

    community: str | None
    topics: tuple[str, ...]


NONE = ContentLabels(None, ())


class Scope(NamedTuple):
    """Contents that share a budget.

    Attributes:
        names: Topics (`topic:NAME`) and communities (`community:NAME`), one of which a content has; empty for any.
        budget: Alerts per boundary.
    """

    names: frozenset[str]
    budget: int

    def holds(self, labels: ContentLabels) -> bool:
        """Return whether a content with these labels counts."""
        found = {TOPIC + topic for topic in labels.topics}
        if labels.community is not None:
            found.add(COMMUNITY + labels.community)
        return not self.names or not self.names.isdisjoint(found)


def read_scopes(text: str, budget: int) -> tuple[Scope, ...]:
    """Return the scopes of `GROUNDSWELL_ALERT_TOPICS`, in the order in which they are judged.

    Args:
        text: Entries separated by commas: a topic, `community:` and a community, or `*` for any content; each alone or
            with `=` and a budget of its own. Those without share `budget`. Names with special characters are
            percent-encoded.
        budget: Alerts per boundary of the entries without a budget of their own.

    Raises:
        ValueError: An entry is not valid; the message has the remedy.
    """
    shared: list[str] = []
    scopes: list[Scope] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        written, has_budget, number = entry.partition("=")
        name = _name(written.strip())
        if not name:
            message = f"{entry!r} has no name; write a topic, community:NAME or *, with =BUDGET for one of its own"
            raise ValueError(message)
        if not has_budget:
            shared.append(name)
            continue
        digits = number.strip()
        if not (digits.isascii() and digits.isdigit() and 1 <= int(digits) <= BUDGET_MAX):
            message = f"the budget of {entry!r} must be a whole number from 1 to {BUDGET_MAX:,}"
            raise ValueError(message)
        scopes.append(Scope(_names([name]), int(digits)))
    if shared or not scopes:
        scopes.append(Scope(_names(shared), budget))
    return tuple(scopes)


def _name(written: str) -> str:
    """Return an entry's name with its prefix, empty if it has none."""
    if written == ANY:
        return ANY
    for prefix in (COMMUNITY, TOPIC):
        if written.startswith(prefix):
            name = unquote(written.removeprefix(prefix))
            return prefix + name if name else ""
    return TOPIC + unquote(written) if written else ""


def _names(names: Iterable[str]) -> frozenset[str]:
    chosen = frozenset(names)
    return frozenset() if ANY in chosen else chosen
