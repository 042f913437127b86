"""An alert as a sentence."""

from __future__ import annotations

from streams.messages.alert_text import duration, phrases, sentence, slack_text

ALERT = {
    "user": "<bo>", "as_of": "2026-03-01T18:00:00.000000Z", "level": 1, "reach": 7.31, "percentile": 96.4,
    "new_sharers": 26, "content": "post-1",
}  # fmt: skip


def test_sentence() -> None:
    """It names user, new sharers, content, shares before, reach and percentile."""
    assert sentence(ALERT) == (
        "<bo> is emerging: 26 people shared this author for the first time, most of all post-1 (1 share before; "
        "predicted reach 7.3, above 96 % of users), as of 2026-03-01T18:00Z"
    )
    alone = sentence({**ALERT, "new_sharers": 1, "level": 0, "content": None})
    assert "1 person shared this author for the first time (no share before;" in alone


def test_optional_parts() -> None:
    """New sharers, the length of the rise and topics are named where the alert has them."""
    full = {**ALERT, "sharers": ["a", "b", "c"], "rising_s": 18_000.0, "topics": ["ai"]}
    assert sentence(full) == (
        "<bo> is emerging: 26 people, among them a, b and c, shared this author for the first time, most of all post-1 "
        "on ai (1 share before; most of the new shares came within 5 h; predicted reach 7.3, above 96 % of users), as "
        "of 2026-03-01T18:00Z"
    )
    assert phrases(full, str.upper) == ["most within 5 h", "among them A, B and C", "on AI"]
    assert phrases(ALERT) == []
    assert [duration(seconds) for seconds in (5, 5_400, 7_200, 172_800)] == ["1 min", "90 min", "2 h", "2 days"]


def test_slack_form_is_escaped() -> None:
    """Ids are data: no link, no mention."""
    assert slack_text(ALERT).startswith("&lt;bo&gt; is emerging")
