"""The number of examples of a property, by the profile of Hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

DEFAULT = 35
"""Number to which those of properties are in proportion; a profile has as many for a property without a number."""


def examples(number: int, **named: Any) -> settings:
    """Return the settings of a property: this number of examples where a profile has `DEFAULT`, else in proportion.

    A plain `max_examples` would apply to every profile, so that `make test-fast` generated as many as `make test`.

    Args:
        number: examples at `DEFAULT`; `make test` has fewer (`tests/conftest.py`), the profile `thorough` far more.
        named: other settings of Hypothesis.
    """
    return settings(max_examples=max(3, number * settings.default.max_examples // DEFAULT), **named)
