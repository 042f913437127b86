"""The query language: what each form means, and the place, the expectation and the hint of each error."""

from __future__ import annotations

import pytest

from streams.query.errors import QueryError
from streams.query.language import parse
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

WORDS = Vocabulary(("reach", "followers", "growth_7d"), ("pagerank", "core"), ("nano", "micro"))
DAY = 86_400
RIGHT: dict[str, Question] = {
    "PREDICT reach FOR user 'u42' IN 3 DAYS ON TOPIC ai": PredictReach("u42", 3 * DAY, "ai"),
    "predict REACH for USER u42 on topic 'in' in 1 week;": PredictReach("u42", 7 * DAY, "in"),
    'PREDICT reach FOR user "it\'s"': PredictReach("it's"),
    "PREDICT reach FOR user 'it''s'": PredictReach("it's"),
    "PREDICT share OF content 'c7' FOR user 'u1'": PredictShare("c7", ("u1",)),
    "PREDICT share OF content c7 FOR users u1, 'u 2',u1 IN 12 HOURS": PredictShare("c7", ("u1", "u 2"), DAY // 2),
    "RANK TOP 20 users BY pagerank WHERE tier = micro": Rank("pagerank", 20, "micro"),
    "RANK users BY growth": Rank("growth_7d"),
    "RANK TOP 5 users BY reach WHERE topic = 2024 AND tier=NANO": Rank("reach", 5, "nano", "2024"),
    "COMPARE user ann WITH user 東": Compare("ann", "東"),
    "EXPLAIN reach FOR user x": Explain("x"),
    "EXPLAIN PREDICT reach FOR user user": Explain("user"),
    "SHOW user x": Show("user", "x"),
    "SHOW content 'c,7'": Show("content", "c,7"),
    "SHOW alerts LIMIT 3": Show("alerts", limit=3),
    "SHOW live": Show("live"),
    "SHOW seeds": Show("seeds"),
    "SHOW centrality OF user a:b@c": Show("centrality", "a:b@c"),
}
WRONG = {
    "": (1, "expected COMPARE, EXPLAIN, PREDICT, RANK or SHOW, but the query ends"),
    "DELETE user x": (1, "expected COMPARE, EXPLAIN, PREDICT, RANK or SHOW, not 'DELETE'"),
    "RANK TOP 20 users BYE pagerank": (19, "expected BY, not 'BYE', at column 19; did you mean BY?"),
    "RANK TOP 20 usres BY pagerank": (13, "did you mean users?"),
    "RANK TOP ten users BY reach": (10, "expected a number, not 'ten'"),
    "RANK TOP 0 users BY reach": (10, "from 1 to 1,000, not 0"),
    "RANK TOP 5 users BY pagerang": (21, "there is no measure 'pagerang'"),
    "RANK users BY reach WHERE tier = mirco": (34, "did you mean micro?"),
    "RANK users BY reach WHERE tier = nano AND tier = nano": (43, "tier is given twice"),
    "RANK users BY reach WHERE size = 3": (27, "expected tier or topic, not 'size'"),
    "RANK users BY reach = 3": (21, "expected WHERE or the end, not '='"),
    "PREDICT reach": (14, "expected FOR, but the query ends"),
    "PREDICT reech FOR user u": (9, "did you mean reach?"),
    "PREDICT reach FOR user 'u42": (24, "the quote ' is not closed"),
    "PREDICT reach FOR user ''": (24, "1 to 256 bytes"),
    "PREDICT reach FOR user u IN 3 DYAS": (31, "expected HOURS, DAYS or WEEKS, not 'DYAS', at"),
    "PREDICT share OF content c FOR users a b": (40, "expected IN, ',' or the end, not 'b'"),
    "COMPARE user a": (15, "expected WITH, but the query ends"),
    "SHOW usr x": (6, "did you mean user?"),
    "SHOW live\nlive": (11, "expected the end, not 'live'"),
}  # fmt: skip


@pytest.mark.parametrize("text", RIGHT)
def test_right_queries(text: str) -> None:
    """Keywords have any case, names may be quoted, and a semicolon may end a query."""
    assert parse(text, WORDS) == RIGHT[text]


@pytest.mark.parametrize("text", WRONG)
def test_wrong_queries(text: str) -> None:
    """The error names what was expected, and its caret stands below the word."""
    column, part = WRONG[text]
    with pytest.raises(QueryError) as caught:
        parse(text, WORDS)
    assert part in str(caught.value)
    assert caught.value.column == column
    line, caret = caught.value.pointer.split("\n")
    assert line == text.replace("\n", " ")
    assert caret.index("^") == column - 1


def test_long_queries() -> None:
    """The pointer shows a part of a long query, and sizes are limited."""
    names = ", ".join(f"user-{number}" for number in range(1_000))
    with pytest.raises(QueryError) as caught:
        parse(f"PREDICT share OF content c FOR users {names} SINCE", WORDS)
    line, caret = caught.value.pointer.split("\n")
    assert len(line) < 150
    assert line[caret.index("^") :] == "SINCE"
    with pytest.raises(QueryError, match="may name 1,000 users, not 1,001"):
        parse(f"PREDICT share OF content c FOR users {names}, more", WORDS)
    with pytest.raises(QueryError, match="at most 300,000"):
        parse("x" * 400_000, WORDS)
