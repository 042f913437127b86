"""Text that is safe to print: ids come from producers, and a terminal obeys some characters.

Every command, log line and error that prints an id or another value of an event escapes it here.
"""

from __future__ import annotations


def safe(data: bytes | str | None, limit: int | None = None) -> str:
    """Escape what is not printable: control characters, escape sequences, bidirectional overrides, bytes without UTF-8.

    limit: the number of characters to keep; the length of the rest is stated.
    """
    if data is None:
        return "-"
    text = data.decode(errors="backslashreplace") if isinstance(data, bytes) else data
    shown = text if limit is None else text[:limit]
    rest = f" … {len(text) - len(shown):,} more characters, see --full" if len(shown) < len(text) else ""
    if shown.isprintable():
        return shown + rest
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in shown) + rest


def safe_lines(text: str) -> str:
    """Escape each line of a text and keep its line breaks."""
    return "\n".join(safe(line) for line in text.split("\n"))


def safe_json(text: str) -> str:
    """Escape what is not printable in one JSON value on one line; the result is the same JSON value."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(one: str) -> str:
    """Escape one character as JSON does; between tokens only white space can occur, and it stays."""
    if one in "\t\r\n":
        return one
    units = one.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
