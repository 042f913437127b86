"""A live stream with a steady order of authors and users that rise; both can be turned around while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from streams.settings.settings import Settings
from tests.support.simulated import send
from tests.support.workers import wait_for

HOUR_S, AUTHORS, FANS = 3_600, 40, 400
DAY_STEPS = 48
STEP_S = 0.25
HISTORY_DAYS, BEGIN_DAYS = 10, 150
RISING_IF_BOUGHT, BOUGHT_SHARES = 6, 16


class Stream(threading.Thread):
    """Sends ten days of event time, then half an hour every `STEP_S`; it begins 150 days before the machine's clock.

    Attributes:
        now_s: event time up to which events are sent.
        reversed_: popular authors get few shares, and others many.
        bought: several authors rise, and stop after nine hours, as bought shares do.
        on: whether events are sent.
        load: further follows at each step.
        authors: how many authors post; None: all, and rising ones.
        ahead: steps that are sent at once with the next one.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        self._settings = settings
        self._random = np.random.default_rng(5)
        self.now_s = float(int(time.time()) // HOUR_S * HOUR_S - BEGIN_DAYS * 24 * HOUR_S)
        self.reversed_ = self.bought = False
        self.on, self.load = True, 0
        self.authors: int | None = None
        self.ahead = HISTORY_DAYS * DAY_STEPS
        self._steps = self._rises = 0
        self._stop_it = threading.Event()

    def run(self) -> None:
        """Send until `stop`."""
        while not self._stop_it.wait(STEP_S):
            if self.on:
                ahead = self.ahead
                steps = [sorted(self._step(), key=lambda event: float(event["time"])) for _ in range(1 + ahead)]
                send(self._settings, [event for step in steps for event in step])
                if ahead:
                    self.ahead = 0

    def stop(self) -> None:
        """End the thread."""
        self._stop_it.set()
        self.join(30)

    def skip(self, days: int) -> None:
        """Send some days of event time at once, and wait until they are sent."""
        self.ahead += days * DAY_STEPS
        wait_for(lambda: self.ahead == 0, 120, "events to be sent")

    def _step(self) -> Iterator[dict[str, Any]]:
        begin, self._steps = self.now_s, self._steps + 1
        length_s = HOUR_S / 2
        self.now_s = begin + length_s
        for number in self._random.choice(self.authors or AUTHORS, 2, replace=False).tolist():
            rank = AUTHORS - 1 - number if self.reversed_ else number
            content = f"c{self._steps}-{number}"
            yield {"type": "create", "time": begin, "user": f"a{number}", "content": content}
            for fan in self._random.choice(FANS, 1 + rank // 4, replace=False).tolist():
                at = begin + float(self._random.uniform(1, length_s))
                yield {"type": "share", "time": at, "user": f"f{fan}", "content": content}
        if self.authors is None:
            yield from self._rise(begin, length_s)
        for _ in range(self.load):
            fan, author = self._random.integers(FANS * 20), self._random.integers(AUTHORS)
            yield {"type": "follow", "time": begin, "user": f"l{fan}", "target": f"a{author}"}

    def _rise(self, begin: float, length_s: float) -> Iterator[dict[str, Any]]:
        """A new author every two days of event time, with shares that grow; if bought several, for nine hours."""
        if self._steps % 6:
            return
        phase = self._steps // 6 % 16
        if phase == 0:
            self._rises += 1
        if self.bought and phase > 2:
            return
        for number in range(RISING_IF_BOUGHT if self.bought else 1):
            author, content = f"r{self._rises}-{number}", f"r{self._rises}-{number}-{phase}"
            yield {"type": "create", "time": begin, "user": author, "content": content}
            shares = BOUGHT_SHARES if self.bought else 12 + 2 * phase
            for fan in self._random.choice(FANS, shares, replace=False).tolist():
                at = begin + float(self._random.uniform(1, length_s))
                yield {"type": "share", "time": at, "user": f"f{fan}", "content": content}
