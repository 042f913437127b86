"""The option `--probability` of commands that ask for a cascade."""

from __future__ import annotations

from streams.errors import InputError

NAMES = ("weighted", "learned")
HELP = (
    "Of each follow that a message passes it: a number from 0 to 1; weighted: 1 / number of users followed; or "
    "learned: from who shared what recently."
)


def parsed(text: str) -> float | str:
    """Return the value of the option as a question has it.

    Raises:
        InputError: it is neither a number from 0 to 1 nor a name.
    """
    if text in NAMES:
        return text
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise InputError(f"--probability {text} is neither a number from 0 to 1, nor {' or '.join(NAMES)}; give one")
    return number
