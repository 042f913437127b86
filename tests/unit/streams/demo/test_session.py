"""The plan of a demo session: when its event time begins, what it prints to try, what it shows while it waits."""

from __future__ import annotations

import json
import shlex
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from streams.demo import session, story
from streams.demo.session import Plan
from streams.demo.view import Frame
from streams.messages import events
from streams.settings.settings import Settings

NOW = time.time()


@pytest.mark.parametrize(
    ("minutes", "rate", "days"), [(1.0, 200.0, 2.75), (None, 200.0, 30.0), (5.0, 0.0, 30.0), (1.0, 1_000.0, 13.8)]
)
def test_event_time_ends_now(minutes: float | None, rate: float, days: float) -> None:
    """The live phase begins as long before now as its events cover, at a boundary of alerts, and at most 30 days."""
    begin = session.begin_of(Plan(rate, minutes), NOW)
    assert begin % session.BOUNDARY_S == 0
    assert (NOW - begin) / session.DAY_S == pytest.approx(days, abs=0.35)


def test_the_history_ends_where_the_live_phase_begins() -> None:
    """Two weeks of named people, then the breakout, in order of time; none after now."""
    plan = Plan(200.0, 1.0)
    history, live = session._stream(plan, NOW)
    begin = session.begin_of(plan, NOW)
    assert begin - 14 * session.DAY_S <= history[0]["time"] <= history[-1]["time"] <= begin
    rows = list(islice(live, 6_000))
    assert rows[0]["time"] >= begin
    shares = [row for row in rows if row["type"] == "share" and row["content"] == "post-breakout"]
    assert len(shares) == story.BREAKOUT_SHARES
    # The shares before the judgement of alerts; at 200 events per second half a minute is 6,000 events.
    assert rows.index(shares[story.EARLY_SHARES - 1]) < 3_000
    assert all("." in row["user"] for row in rows)


def test_what_it_prints_can_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export line, and two commands; the event is valid and not after the event time of the demo."""
    settings = Settings(broker="127.0.0.1:9092")
    export, tail, produce = session.hints(settings, NOW, "o'ada")
    commands = str(Path(sys.executable).parent)
    assert export.removesuffix(f" PATH={commands}:$PATH") == "export GROUNDSWELL_BROKER=127.0.0.1:9092"
    monkeypatch.setenv("PATH", "/nowhere")
    other, *_ = session.hints(settings.model_copy(update={"web_port": 7000}), NOW, "ada")
    assert other == f"export GROUNDSWELL_BROKER=127.0.0.1:9092 GROUNDSWELL_WEB_PORT=7000 PATH={commands}:$PATH"
    monkeypatch.setenv("PATH", commands)
    assert session.hints(settings, NOW, "ada")[0] == "export GROUNDSWELL_BROKER=127.0.0.1:9092"
    assert tail == "groundswell tail alerts"
    event = json.loads(shlex.split(produce)[1])
    assert event == {"type": "follow", "time": round(NOW), "user": "me", "target": "o'ada"}
    assert len(events.mutations(json.dumps(event).encode(), "follow", int(NOW * 1_000))) == 1


class Shown:
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, float | None]] = []

    def show(self, frame: Frame) -> None:
        """Keep stage and seconds."""
        self.stages.append((frame.stage, frame.waited_s))

    def close(self) -> None:
        """Nothing."""


@pytest.mark.parametrize("compiled", [False, True])
def test_waiting_has_seconds_and_a_reason(compiled: bool) -> None:
    """The seconds go on; only a first start names the kernels."""
    shown: Any = Shown()
    waiting = session.starting(Frame(), shown, compiled=compiled)
    waiting(2.5)
    assert [seconds for _, seconds in shown.stages] == [0.0, 2.5]
    assert ("kernels" in shown.stages[0][0]) != compiled
