"""An alert as a sentence."""

from __future__ import annotations

from streams.messages.alert_text import sentence, slack_text

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


def test_slack_form_is_escaped() -> None:
    """Ids are data: no link, no mention."""
    assert slack_text(ALERT).startswith("&lt;bo&gt; is emerging")
