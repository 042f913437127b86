"""Selection of a floor: the largest that is not worse than the best by more than chance, and its table on the card."""

import pytest

from model.config import ModelConfig
from model.training.floor_selection import FLOORS, Trial, chance, choose, rows
from model.training.model_card import TrainingRecord, card


def trials(*validations: float, users: int = 400) -> list[Trial]:
    """A trial per floor, 1 first; over 400 users chance is .05."""
    return [Trial(floor, value, users, 1000 / floor) for floor, value in zip(FLOORS, validations, strict=True)]


@pytest.mark.parametrize(
    ("validations", "users", "floor"),
    [
        ((0.20, 0.20, 0.20, 0.20), 400, 8),
        ((0.24, 0.20, 0.22, 0.195), 400, 8),
        ((0.24, 0.20, 0.22, 0.18), 400, 4),
        ((0.24, 0.20, 0.18, 0.18), 400, 2),
        ((0.24, 0.18, 0.18, 0.18), 400, 1),
        # It is the best of all that counts, whichever floor has it.
        ((0.10, 0.17, 0.24, 0.18), 400, 4),
        ((0.10, 0.10, 0.10, 0.30), 400, 8),
        # With more users less is left to chance.
        ((0.24, 0.20, 0.22, 0.195), 10_000, 1),
        ((0.24, 0.20, 0.235, 0.195), 10_000, 4),
        ((-0.30, -0.20, -0.10, -0.14), 400, 8),
    ],
)
def test_the_largest_floor_within_chance_is_chosen(validations: tuple[float, ...], users: int, floor: int) -> None:
    """Not worse than the best by more than the standard error; in whatever order they were tried."""
    tried = trials(*validations, users=users)
    assert choose(tried).floor == choose(tried[::-1]).floor == floor


def test_chance_shrinks_with_users() -> None:
    """One over the root of their number; zero users are no error."""
    assert (chance(100), chance(400), chance(0)) == (0.1, 0.05, 1)


def test_one_row_is_chosen() -> None:
    """The table marks the selected floor; without trials it is empty."""
    table = rows(trials(0.24, 0.2, 0.22, 0.18))
    assert [row["floor"] for row in table if row["chosen"]] == [4]
    assert table[3] == {"floor": 8, "validation": 0.18, "stale_per_1000_events": 125.0, "chosen": False}
    assert rows([]) == []


def test_the_card_holds_the_trials() -> None:
    """With figures of each floor where they were tried, without a word of it where not."""
    given = TrainingRecord("groundswell train this", "that", 4, 40, "the truth", 12.0)
    tried = TrainingRecord("groundswell train this", "that", 4, 40, "the truth", 12.0, trials(0.24, 0.2, 0.2213, 0.18))
    config = ModelConfig(floor=4)
    assert "## The floor" not in card(config, given, [])
    text = card(config, tried, [])
    for part in (
        "octaves from 4 on",
        "400 users of the newest",
        "| 4 | 0.2213 | 250.0 | yes |",
        "| 8 | 0.18 | 125.0 |  |",
    ):
        assert part in text
