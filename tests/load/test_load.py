"""The checks of soak and overload can fail, and their streams depend only on the event's number."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from streams.messages.events import mutations
from streams.telemetry.metrics import Freshness
from tests.load.events import BLOCK, live, load
from tests.load.rig import Sample, spread
from tests.load.soak import Bounds, verdict

RATE = 100.0
NOW_MS = 2_000_000_000_000


def samples(*, memory_mb: float = 0.0, files: int = 0, lag: int = 5, slow: float = 0.0) -> list[Sample]:
    """A soak of 40 samples; memory and files grow by the given amounts per sample; slow: slow events per minute."""
    found = []
    for number in range(40):
        counts = np.zeros(len(Freshness.BOUNDS_S) + 1)
        place = int(np.searchsorted(Freshness.BOUNDS_S, 0.05))
        counts[place:] = 1_000.0 * number
        counts[place : int(np.searchsorted(Freshness.BOUNDS_S, 60.0))] *= 1.0 - slow
        rss = {"w0": 400.0 + memory_mb * number, "broker": 300.0}
        found.append(
            Sample(10.0 * number, rss, {"w0": 40 + files * number, "broker": 90}, lag, 1_000 * number, freshness=counts)
        )
    return found


def test_a_flat_soak_is_within_bounds() -> None:
    """Without growth nothing is out of bounds."""
    found = verdict(samples(), RATE, Bounds(), [])
    assert found["out_of_bounds"] == []
    assert found["memory_spread_last_half"]["w0"] == 0
    assert found["freshness_p99_ms"] < 100
    assert found["mutations"] == 39_000


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (samples(memory_mb=1.0), "memory of w0"),
        (samples(files=1), "open files of w0"),
        (samples(lag=1_001), "lag: 1001 records"),
        (samples(slow=0.05), "freshness: p99"),
    ],
)
def test_each_bound_can_be_exceeded(run: list[Sample], message: str) -> None:
    """Growing memory or files, lag, or slow events: exactly that is reported."""
    (wrong,) = verdict(run, RATE, Bounds(), [])["out_of_bounds"]
    assert wrong.startswith(message)


def test_an_error_in_a_log_is_out_of_bounds() -> None:
    """Also when every figure is within its limit."""
    (wrong,) = verdict(samples(), RATE, Bounds(), ["it broke"])["out_of_bounds"]
    assert "it broke" in wrong


def test_the_relative_spread_of_values() -> None:
    """(max − min) / mean."""
    assert spread([90.0, 110.0]) == pytest.approx(0.2)
    assert spread([]) == 0.0


def test_streams_can_start_at_any_event() -> None:
    """A stream from event N on equals the whole stream from there, and every event is valid."""
    count, first = 2 * BLOCK + 300, BLOCK + 123
    every = list(islice(load(3), count))
    assert list(islice(load(3, first), count - first)) == every[first:]
    assert list(islice(live(3, 500), 100)) == list(islice(live(3), 600))[500:]
    for event in every:
        assert len(mutations(event.value, event.kind, NOW_MS)) == 1
    assert {event.kind for event in every} == {"follow", "share", "create"}
