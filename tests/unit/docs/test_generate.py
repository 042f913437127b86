"""The generated pages: bounds of settings and labels of metrics in their tables."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from docs import generate
from streams.settings.settings import PREFIX, Settings


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("log_format", "`auto`, `pretty`, `json`"),
        ("ssl_check_hostname", "`True`, `False`"),
        ("shards", "1 to 64"),
        ("checkpoint_keep", "1 or more"),
        ("audit_share", "0 to 1"),
        ("group", "not empty"),
        ("device", r"`^(auto\|cpu\|cuda(:\d+)?)$`"),
        ("broker", ""),
        ("sasl_password", ""),
    ],
)
def test_the_table_says_what_is_allowed(name: str, allowed: str) -> None:
    """Choices, bounds and patterns are those of the field, and a setting without any has an empty cell."""
    field = Settings.model_fields[name]
    assert generate._allowed(field) == allowed
    assert f"`{PREFIX}{name.upper()}` | {generate._default(field)} | {allowed} | {field.description} |" in (
        generate.settings_page()
    )


@pytest.mark.parametrize("page", [generate.settings_page, generate.metrics_page])
def test_every_row_has_four_cells(page: Callable[[], str]) -> None:
    """A bar inside a cell does not split the row."""
    rows = [line for line in page().splitlines() if line.startswith("|")]
    assert len(rows) > 30
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {6}


def test_metrics_have_their_labels() -> None:
    """A metric has its labels before it has a value, and the page is the same each time."""
    page = generate.metrics_page()
    assert "| `groundswell_dead_letters_total` | counter | `topic`, `reason` | " in page
    assert "| `groundswell_checkpoint_age_seconds` | gauge | `shard` | " in page
    assert "| `groundswell_scores_total` | counter |  | " in page
    assert page == generate.metrics_page()
