"""The comparison of chaos runs fails where it must: runs with one error, and the problem reported for each."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from graphstate.types import Kind
from tests.chaos import errors, evidence
from tests.chaos.judge import RunResult, Score, Truth, find_problems, quantile
from tests.chaos.member import End
from tests.chaos.schedule import CRASH, DISK, KILL, KINDS, TERM, schedule
from tests.chaos.stream import Message, messages, truth

EVENTS = 600
SEED = 7


@pytest.fixture(scope="module")
def sent() -> list[Message]:
    """Make a short stream."""
    return messages(SEED, EVENTS)


@pytest.fixture(scope="module")
def expected(sent: list[Message]) -> Truth:
    """The result of an undisturbed run."""
    return evidence.expected_result(truth(sent), sent)


def run_of(result: Truth, expected: Truth) -> RunResult:
    """A run with this result and otherwise correct output."""
    places = {("in:0", number) for number in range(expected.sent)}
    return RunResult(
        answers={user: [score] for user, score in result.scores.items()},
        nodes={0: dict(result.nodes)},
        topic={user: score.reach for user, score in result.scores.items()},
        dead=set(expected.dead),
        arrived=places,
        taken=set(places),
    )


def test_a_correct_run_passes(sent: list[Message], expected: Truth) -> None:
    """The same events in another order, some twice, give the same result."""
    every = truth(sent) * 2
    random.Random(1).shuffle(every)
    assert find_problems(expected, run_of(evidence.expected_result(every, sent), expected)) == []
    assert len(expected.scores) > 100
    assert len(expected.nodes) > len(expected.scores)


def test_one_lost_event_is_reported(sent: list[Message], expected: Truth) -> None:
    """Without its last event the graph differs, and the problem names the node."""
    every = truth(sent)
    for lost in range(len(every) - 1, len(every) - 6, -1):
        problems = find_problems(
            expected, run_of(evidence.expected_result(every[:lost] + every[lost + 1 :], sent), expected)
        )
        assert problems, every[lost]


def test_an_event_counted_twice_is_reported(expected: Truth) -> None:
    """A counter that is one too high in a single node is enough."""
    actual = run_of(expected, expected)
    key = next(key for key, record in expected.nodes.items() if key[0] == "user" and record[1][0][8] > 0)
    propagated, (own, as_of), *rest = actual.nodes[0][key]
    actual.nodes[0][key] = (propagated, ((*own[:8], own[8] + 1, *own[9:]), as_of), *rest)
    (problem,) = find_problems(expected, actual)
    assert problem.startswith("1 nodes differ, such as")
    assert key[1] in problem


WRONGS: dict[str, tuple[Callable[[RunResult, str], object], str]] = {
    "a user without a score": (lambda actual, user: actual.answers.pop(user), "users with a score are missing"),
    "a user who should be removed": (
        lambda actual, user: actual.answers.update(stranger=actual.answers[user]),
        "users with a score should not be there",
    ),
    "two owners": (lambda actual, user: actual.answers[user].append(actual.answers[user][0]), "more than one worker"),
    "different reach": (
        lambda actual, user: actual.answers.update({user: [moved(actual, user, reach=1e-4)]}),
        "different reach",
    ),
    "different percentile": (
        lambda actual, user: actual.answers.update({user: [moved(actual, user, percentile=0.6)]}),
        "different percentile",
    ),
    "a different as-of time": (
        lambda actual, user: actual.answers.update({user: [moved(actual, user, as_of=1)]}),
        "different as-of time",
    ),
    "no score published": (lambda actual, user: actual.topic.pop(user), "users on the score topic are missing"),
    "no tombstone": (
        lambda actual, _: actual.topic.update(stranger=1.0),
        "users on the score topic should not be there",
    ),
    "an old score published": (
        lambda actual, user: actual.topic.update({user: (actual.topic[user] or 0.0) * 1.05 + 0.01}),
        "published scores are out of date",
    ),
    "a message lost in transit": (lambda actual, _: actual.taken.pop(), "not in the mutations log"),
    "a message of unknown origin": (lambda actual, _: actual.taken.add(("in:9", 0)), "on no input topic"),
    "a bad message lost": (lambda actual, _: actual.dead.pop(), "not on the dead-letter topic"),
    "a good message refused": (
        lambda actual, _: actual.dead.add(b"good"),
        "good messages are on the dead-letter topic",
    ),
    "a node without an owner": (lambda actual, user: actual.nodes[0].pop(("user", user)), "nodes are missing"),
    "an error in a log": (lambda actual, _: actual.errors.append("a log line"), "a log line"),
}


def moved(actual: RunResult, user: str, *, reach: float = 0.0, percentile: float = 0.0, as_of: int = 0) -> Score:
    """Change the user's score a little."""
    score = actual.answers[user][0]
    return Score(score.reach + reach * max(1.0, score.reach), score.percentile + percentile, score.as_of + as_of)


@pytest.mark.parametrize("name", WRONGS)
def test_each_kind_of_error_is_reported(expected: Truth, name: str) -> None:
    """One error in an otherwise correct run is reported in exactly one line."""
    spoil, message = WRONGS[name]
    some = replace(expected, dead={b"bad"})
    actual = run_of(some, some)
    spoil(actual, next(iter(expected.scores)))
    problems = find_problems(some, actual)
    assert len(problems) == 1
    assert message in problems[0]


def test_messages_that_never_arrived_are_reported() -> None:
    """A message that never reached its input topic is a problem, although nothing downstream misses it."""
    problems = find_problems(Truth({}, {}, set(), 3), RunResult({}, {}, {}, set(), {("in:0", 0)}, {("in:0", 0)}))
    assert problems == ["2 of 3 messages never reached the input topics"]


def test_the_stream_has_every_kind_of_message(sent: list[Message]) -> None:
    """The same seed gives the same messages, with repeats, shifted timestamps and bad messages."""
    assert messages(SEED, EVENTS) == sent
    assert messages(SEED + 1, EVENTS) != sent
    many = messages(SEED, 20_000)
    assert len({message.value for message in many}) < len(many)
    assert any(message.bad for message in many)
    assert {message.skew_s < 0 for message in many} == {True, False}
    assert {mutation.kind for mutation in truth(many)} == set(Kind)


def test_schedules_depend_only_on_the_seed() -> None:
    """A seed gives the same faults every time, and a few successive seeds cover every kind."""
    assert schedule(3, 5, 40.0, 3) == schedule(3, 5, 40.0, 3)
    assert schedule(3, 5, 40.0, 3) != schedule(4, 5, 40.0, 3)
    assert {fault.kind for seed in range(40, 44) for fault in schedule(seed, 3, 20.0, 3)} == set(KINDS)
    assert all(0 <= fault.at_s < 40 for fault in schedule(5, 5, 40.0, 3))


def test_errors_and_ends_need_a_reason(tmp_path: Path) -> None:
    """An error line passes only with a fault that explains it, an exit only after its signal or with an error line."""
    away = '{"event": "Unable to update metadata from [1]", "level": "error", "logger": "aiokafka"}'
    assert errors.explained(away, {CRASH})
    assert not errors.explained(away, {KILL})
    assert not errors.explained("KeyError: 1", set(KINDS))
    assert errors.expected_exit(End(0, 1.0, -9, KILL, ""), {KILL})
    assert errors.expected_exit(End(0, 1.0, 0, TERM, ""), {TERM})
    assert not errors.expected_exit(End(0, 1.0, 1, TERM, ""), {TERM})
    full = "groundswell: no space is left on the disk of state"
    assert not errors.expected_exit(End(0, 1.0, 1, "", full), {KILL})
    assert errors.expected_exit(End(0, 1.0, 1, "", full), {DISK})
    assert errors.expected_exit(End(0, 1.0, -15, TERM, full), {DISK, TERM})
    assert not errors.expected_exit(End(0, 1.0, -15, TERM, full), {TERM})
    assert not errors.expected_exit(End(0, 1.0, -15, TERM, ""), {DISK, TERM})
    log = tmp_path / "w0.log"
    log.write_text(
        f'{{"event": "ready", "level": "info"}}\n{away}\nTraceback (most recent call last):\n  File\nKeyError: 1\n'
        "groundswell: an expected exit\n"
    )
    assert list(evidence.error_lines(log)) == [away, "KeyError: 1"]


def test_the_quantile_of_a_histogram() -> None:
    """Linear within a bucket; the last bound where the bucket is open."""
    assert quantile({0.1: 0.0, 0.2: 10.0, float("inf"): 10.0}, 0.5) == pytest.approx(0.15)
    assert quantile({1.0: 1.0, float("inf"): 2.0}, 0.95) == 1.0
    assert quantile({}, 0.5) is None
