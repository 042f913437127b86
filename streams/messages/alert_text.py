"""An alert as a sentence, for webhooks and pages, and the parts that are optional as short phrases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_HOUR_S, _DAY_S = 3_600, 86_400


def sentence(alert: Mapping[str, Any]) -> str:
    """Return an alert, given by the fields of its message, as one sentence in plain text."""
    new, level = alert["new_sharers"], alert["level"]
    people = "1 person" if new == 1 else f"{new} people"
    sharers = f", among them {listed(alert['sharers'])}," if alert.get("sharers") else ""
    before = "no share before" if not level else "1 share before" if level == 1 else f"{level} shares before"
    about = f", most of all {alert['content']}" if alert.get("content") else ""
    topics = f" on {listed(alert['topics'])}" if alert.get("topics") else ""
    rising = f"; most of the new shares came within {duration(alert['rising_s'])}" if alert.get("rising_s") else ""
    return (
        f"{alert['user']} is emerging: {people}{sharers} shared this author for the first time{about}{topics} ({before}"
        f"{rising}; predicted reach {alert['reach']:.1f}, above {alert['percentile']:.0f} % of users), as of "
        f"{alert['as_of'][:16]}Z"
    )


def phrases(alert: Mapping[str, Any], shown: Callable[[str], str] = str) -> list[str]:
    """Return the optional parts of an alert as phrases.

    Args:
        alert: Fields of the message.
        shown: How an id is shown.
    """
    found = []
    if alert.get("rising_s"):
        found.append(f"most within {duration(alert['rising_s'])}")
    if alert.get("sharers"):
        found.append(f"among them {listed([shown(user) for user in alert['sharers']])}")
    if alert.get("topics"):
        found.append(f"on {listed([shown(topic) for topic in alert['topics']])}")
    return found


def listed(names: Sequence[str]) -> str:
    """Return names as an enumeration."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def duration(seconds: float) -> str:
    """Return a time span in minutes, hours or days, whichever suits it."""
    if seconds < 2 * _HOUR_S:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / _HOUR_S:.0f} h" if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:.0f} days"


def slack_text(alert: Mapping[str, Any]) -> str:
    """Return the sentence with the three characters escaped that Slack's text form gives a meaning."""
    return sentence(alert).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
