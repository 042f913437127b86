"""What alerts are about: entries, budgets and errors of the setting."""

from __future__ import annotations

import pytest

from streams.settings.alert_topics import NONE, ContentLabels, Scope, read_scopes


def test_entries() -> None:
    """Entries with a budget are judged first, in their order; the others share one; `*` is any content."""
    assert read_scopes("ai=2, art ,community:c%2C1,*=5", 3) == (
        Scope(frozenset({"topic:ai"}), 2),
        Scope(frozenset(), 5),
        Scope(frozenset({"topic:art", "community:c,1"}), 3),
    )
    assert read_scopes("", 3) == read_scopes("*", 3) == (Scope(frozenset(), 3),)
    assert read_scopes("topic:community:x=1", 3) == (Scope(frozenset({"topic:community:x"}), 1),)


def test_contents() -> None:
    """A content counts by any of its topics or its community."""
    (scope,) = read_scopes("ai,community:x", 1)
    assert scope.holds(ContentLabels(None, ("art", "ai")))
    assert scope.holds(ContentLabels("x", ()))
    assert not scope.holds(ContentLabels("ai", ("x",)))
    assert not scope.holds(NONE)
    assert read_scopes("*", 1)[0].holds(NONE)


@pytest.mark.parametrize("text", ["=2", "ai=0", "ai=x", "ai=1001", "community:", "ai=1=2"])
def test_refused(text: str) -> None:
    """The message shows what an entry must look like."""
    with pytest.raises(ValueError, match=r"write a topic|whole number from 1 to 1,000"):
        read_scopes(text, 3)
