"""Escapes text before it is printed: ids come from producers and may hold control characters for a terminal.

Every command, log line and error that prints an id or another value of an event uses this module.
"""

from __future__ import annotations


def safe(data: bytes | str | None, limit: int | None = None) -> str:
    """Escape what is not printable: control characters, escape sequences, bidirectional overrides, bytes without UTF-8.

    Args:
        data: the text; None becomes a dash.
        limit: the number of characters to keep, followed by the number of the others; None: all.
    """
    if data is None:
        return "-"
    text = data.decode(errors="backslashreplace") if isinstance(data, bytes) else data
    shown = text if limit is None else text[:limit]
    rest = f" … {len(text) - len(shown):,} more characters, see --full" if len(shown) < len(text) else ""
    if shown.isprintable():
        return shown + rest
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown) + rest


def safe_lines(text: str) -> str:
    """Escape each line of a text and keep its line breaks."""
    return "\n".join(safe(line) for line in text.split("\n"))


def safe_json(text: str) -> str:
    """Escape what is not printable in one JSON value on one line; the result is the same JSON value."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    """Escape one character as JSON does; white space, which occurs only between tokens, is kept."""
    if char in "\t\r\n":
        return char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[byte]:02x}{units[byte + 1]:02x}" for byte in range(0, len(units), 2))
