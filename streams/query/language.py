"""Reads a query: `parse` returns the question, or raises an error that points at the first wrong word."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from streams.query.errors import QueryError
from streams.query.questions import (
    Compare,
    Explain,
    PredictReach,
    PredictShare,
    Question,
    Rank,
    Show,
    Vocabulary,
)

GRAMMAR = Path(__file__).parent / "grammar.lark"
TEXT_CHARS = 300_000
"""Maximum length of a query: a thousand ids of the maximum length."""
ID_BYTES = 256
USERS = 1_000
"""Maximum users of one PREDICT share."""
LIMIT = 1_000
"""Maximum users of a ranking."""
UNITS_S = {"hour": 3_600, "day": 86_400, "week": 604_800}
SHOWN = 60
"""Characters of the query that are shown on each side of an error."""
_NOUNS = {
    "REACH", "SHARE", "USER", "USERS", "CONTENT", "TIER", "TOPIC", "ALERTS", "LIVE", "SEEDS", "CENTRALITY",
}  # fmt: skip
_NAMES = {
    "WORD": "a name", "STRING": "a name in quotes", "NUMBER": "a number", "UNIT": "HOURS, DAYS or WEEKS",
    "COMMA": "','", "EQUAL": "'='", "$END": "the end",
}  # fmt: skip


@cache
def _lark() -> Lark:
    return Lark(GRAMMAR.read_text(encoding="utf-8"), parser="lalr", maybe_placeholders=False)


def parse(text: str, vocabulary: Vocabulary) -> Question:
    """Return the question of a query.

    Args:
        text: The query, on one line.
        vocabulary: The measures and tiers that it may name.

    Raises:
        QueryError: It is no query of the language, or names a measure or tier that does not exist.
    """
    if len(text) > TEXT_CHARS:
        raise QueryError(f"the query has {len(text):,} characters; at most {TEXT_CHARS:,} are read")
    try:
        tree = _lark().parse(text)
    except UnexpectedInput as error:
        _refuse(text, error)
    return _Reader(text, vocabulary).question(tree)


def _refuse(text: str, error: UnexpectedInput) -> NoReturn:
    """Raise the error of a query that the grammar refuses."""
    place, word = len(text.rstrip()), ""
    if isinstance(error, UnexpectedCharacters):
        place = error.pos_in_stream or 0
        word = text[place:].split(maxsplit=1)[0]
        if word[0] in "'\"":
            raise error_at(text, place, len(word), f"the quote {word[0]} is not closed; add one after the name")
    elif isinstance(error, UnexpectedToken) and error.token.type != "$END":
        place, word = error.token.start_pos or 0, str(error.token)
    before: Any = _lark().parse_interactive(text[:place])
    before.exhaust_lexer()
    names = before.accepts() - {"STRING" if "WORD" in before.accepts() else "", "SEMICOLON"}
    keywords = {name.lower() if name in _NOUNS else name for name in names if name not in _NAMES}
    listed = [*sorted(keywords, key=str.lower), *(_NAMES[name] for name in _NAMES if name in names)]
    wanted = " or ".join(filter(None, [", ".join(listed[:-1]), *listed[-1:]]))
    near = _nearest(word, [*keywords, *(["HOURS", "DAYS", "WEEKS"] if "UNIT" in names else ())])
    found = f"not {word!r}" if word else "but the query ends"
    raise error_at(text, place, len(word), f"expected {wanted}, {found}", near)


def error_at(text: str, place: int, length: int, message: str, near: str = "") -> QueryError:
    """Return the error of a word of a query.

    Args:
        text: The query.
        place: Where the word begins.
        length: Its characters.
        message: What is wrong.
        near: The word that was probably meant; empty if none is near.
    """
    first = max(0, place - SHOWN)
    line = "".join(" " if char in "\t\r\n" else char for char in text[first : place + length + SHOWN])
    pointer = f"{line}\n{' ' * (place - first)}{'^' * max(1, min(length, SHOWN))}"
    hint = f"; did you mean {near}?" if near else ""
    return QueryError(f"{message}, at column {place + 1}{hint}", pointer, place + 1)


def _nearest(word: str, names: Iterable[str]) -> str:
    by_lower = {name.lower(): name for name in names}
    close = get_close_matches(word.lower(), by_lower, 1, 0.6)
    return by_lower[close[0]] if close else ""


class _Reader:
    """Makes questions of the trees of one query."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        self._text, self._vocabulary = text, vocabulary

    def question(self, tree: Any) -> Question:
        """Return the question of a whole tree."""
        form = tree.children[0]
        parts = [part for part in form.children if isinstance(part, Tree)]
        read: dict[str, Callable[[list[Any]], Question]] = {
            "predict_reach": self._reach,
            "predict_share": self._share,
            "rank": self._rank,
            "compare": lambda parts: Compare(self._id(parts[0]), self._id(parts[1])),
            "explain": lambda parts: Explain(self._id(parts[0])),
        }
        if form.data == "show":
            return self._show(form.children[1])
        return read[str(form.data)](parts)

    def _reach(self, parts: list[Any]) -> PredictReach:
        more = {part.data: part for part in parts[1:]}
        topic = self._id(more["topic"].children[-1]) if "topic" in more else ""
        return PredictReach(self._id(parts[0]), self._within(more.get("within")), topic)

    def _share(self, parts: list[Any]) -> PredictShare:
        within = parts.pop() if parts[-1].data == "within" else None
        content, *users = (self._id(part) for part in parts)
        if len(users) > USERS:
            raise self._error(parts[USERS + 1].children[0], f"a query may name {USERS:,} users, not {len(users):,}")
        return PredictShare(content, tuple(dict.fromkeys(users)), self._within(within))

    def _rank(self, parts: list[Any]) -> Rank:
        limit = self._number(parts.pop(0), LIMIT) if parts[0].data == "number" else 20
        by = self._name(parts[0], (*self._vocabulary.measures, *self._vocabulary.of_analyst), "measure")
        given: dict[str, str] = {}
        for condition in parts[1].children if len(parts) > 1 else ():
            if isinstance(condition, Token):
                continue
            (one,) = condition.children
            keyword, value = one.children
            field = keyword.lower()
            if field in given:
                raise self._error(keyword, f"{field} is given twice; leave one out")
            given[field] = self._name(value, self._vocabulary.tiers, "tier") if field == "tier" else self._id(value)
        return Rank(by, limit, given.get("tier", ""), given.get("topic", ""))

    def _show(self, part: Any) -> Show:
        if isinstance(part, Token):
            return Show("live" if part.type == "LIVE" else "seeds")
        if part.data == "alerts":
            inside = [each for each in part.children if isinstance(each, Tree)]
            return Show("alerts", limit=self._number(inside[0], LIMIT) if inside else 20)
        return Show(str(part.data), self._id(part.children[-1]))  # type: ignore[arg-type]

    def _within(self, within: Any) -> int | None:
        if within is None:
            return None
        _, number, unit = within.children
        return self._number(number, 10_000) * UNITS_S[unit.lower().removesuffix("s")]

    def _number(self, number: Any, most: int) -> int:
        token = number.children[0]
        value = int(token) if len(token) < 10 else most + 1
        if not 1 <= value <= most:
            raise self._error(token, f"the number must be from 1 to {most:,}, not {token}")
        return value

    def _name(self, word: Any, names: tuple[str, ...], kind: str) -> str:
        token = word.children[0]
        name = {"growth": "growth_7d"}.get(token.lower(), token.lower())
        if name not in names:
            known = ", ".join(dict.fromkeys(names))
            raise self._error(token, f"there is no {kind} {str(token)!r}, but {known}", _nearest(token, names))
        return str(name)

    def _id(self, tree: Any) -> str:
        token = tree.children[0]
        text = str(token)
        if token.type == "STRING":
            text = text[1:-1].replace(text[0] * 2, text[0])
        size = len(text.encode(errors="surrogatepass"))
        if not 0 < size <= ID_BYTES:
            raise self._error(token, f"a name has 1 to {ID_BYTES} bytes of UTF-8, not {size}")
        return text

    def _error(self, token: Token, message: str, near: str = "") -> QueryError:
        return error_at(self._text, token.start_pos or 0, len(token), message, near)
