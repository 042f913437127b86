"""An alert as a sentence, for webhooks and pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def sentence(alert: Mapping[str, Any]) -> str:
    """Return an alert, given by the fields of its message, as one sentence in plain text."""
    new, level = alert["new_sharers"], alert["level"]
    people = "1 person" if new == 1 else f"{new} people"
    before = "no share before" if not level else "1 share before" if level == 1 else f"{level} shares before"
    about = f", most of all {alert['content']}" if alert.get("content") else ""
    return (
        f"{alert['user']} is emerging: {people} shared this author for the first time{about} ({before}; predicted "
        f"reach {alert['reach']:.1f}, above {alert['percentile']:.0f} % of users), as of {alert['as_of'][:16]}Z"
    )


def slack_text(alert: Mapping[str, Any]) -> str:
    """Return the sentence with the three characters escaped that Slack's text form gives a meaning."""
    return sentence(alert).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
