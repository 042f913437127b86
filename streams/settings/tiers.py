"""Tiers: classes of users by the octave of their followers."""

from __future__ import annotations

import re

from streams.errors import SettingsError

DEFAULT = "nano=0,micro=13,mid=16,macro=19,mega=20"
_PART = re.compile(r"([a-z][a-z0-9_-]{0,31})=(\d{1,2})")


class Tiers:
    """Tiers in ascending order.

    Args:
        text: Names with the octave at which each begins, such as `nano=0,micro=13`: octave k begins at 2^k followers.

    Raises:
        SettingsError: The text is malformed, or the octaves do not rise.
    """

    def __init__(self, text: str = DEFAULT) -> None:
        parts = [_PART.fullmatch(part.strip()) for part in text.split(",")]
        octaves = [int(part[2]) for part in parts if part]
        names = {part[1] for part in parts if part}
        if len(names) < len(parts) or octaves != sorted(set(octaves)) or max(octaves) > 40:
            raise SettingsError(f"tiers {text!r} are not names with rising octaves, such as {DEFAULT}")
        self.bounds: dict[str, tuple[int, int]] = {}
        """Followers at which each tier begins, and at which the next one does."""
        for part, following in zip(parts, [*octaves[1:], 62], strict=True):
            if part:
                self.bounds[part[1]] = 1 << int(part[2]), 1 << following

    def of(self, followers: int) -> str | None:
        """Return the tier of a number of followers, None below the first."""
        return next((name for name, (low, high) in self.bounds.items() if low <= followers < high), None)
