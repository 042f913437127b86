"""The option --probability."""

from __future__ import annotations

import pytest

from streams.commands._probability import parsed
from streams.errors import InputError


def test_numbers_and_names() -> None:
    """Numbers from 0 to 1 and two names are taken, all else is refused with what may be given."""
    assert [parsed(text) for text in ("0", "1", "0.25", "weighted", "learned")] == [0, 1, 0.25, "weighted", "learned"]
    for text in ("-0.1", "1.5", "nan", "high", ""):
        with pytest.raises(InputError, match="weighted or learned"):
            parsed(text)
