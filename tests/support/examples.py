"""The number of examples of a property, by the profile of Hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

DEFAULT = 35
"""Examples of a property without a number of its own in the default profile (`tests/conftest.py`)."""


def examples(number: int, **named: Any) -> settings:
    """Return the settings of a property: this number of examples in the default profile, and in proportion in others.

    A plain `max_examples` would apply to every profile, so that `make test-fast` generated as many as `make test`.

    Args:
        number: examples in the default profile.
        named: other settings of Hypothesis.
    """
    return settings(max_examples=max(3, number * settings.default.max_examples // DEFAULT), **named)
