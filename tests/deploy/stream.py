"""A live stream with a steady order of authors and users that rise; both can be turned around while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from streams.settings.settings import Settings
from tests.support.simulated import send

HOUR_S, AUTHORS, FANS = 3_600, 40, 400
STEP_S = 0.25


class Stream(threading.Thread):
    """Sends half an hour of event time every `STEP_S`, which slows down two days before the machine's clock.

    Attributes:
        now_s: event time up to which events are sent.
        reversed_: popular authors get few shares, and others many; users who rose stop, as bought shares do.
        on: whether events are sent.
        load: further shares at each step.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        self._settings = settings
        self._random = np.random.default_rng(5)
        self.now_s = float(int(time.time()) // HOUR_S * HOUR_S - 25 * 24 * HOUR_S)
        self.reversed_, self.on, self.load = False, True, 0
        self._steps = self._rises = 0
        self._stop_it = threading.Event()

    def run(self) -> None:
        """Send until `stop`."""
        while not self._stop_it.wait(STEP_S):
            if self.on:
                send(self._settings, sorted(self._step(), key=lambda event: float(event["time"])))

    def stop(self) -> None:
        """End the thread."""
        self._stop_it.set()
        self.join(30)

    def _step(self) -> Iterator[dict[str, Any]]:
        begin, self._steps = self.now_s, self._steps + 1
        # The clock of events must stay behind that of the machine: it slows down near it.
        length_s = HOUR_S / 2 if begin < time.time() - 2 * 24 * HOUR_S else 60
        self.now_s = begin + length_s
        for number in self._random.choice(AUTHORS, 2, replace=False).tolist():
            rank = AUTHORS - 1 - number if self.reversed_ else number
            content = f"c{self._steps}-{number}"
            yield {"type": "create", "time": begin, "user": f"a{number}", "content": content}
            for fan in self._random.choice(FANS, 1 + rank // 4, replace=False).tolist():
                at = begin + float(self._random.uniform(1, length_s))
                yield {"type": "share", "time": at, "user": f"f{fan}", "content": content}
        yield from self._rise(begin, length_s)
        for _ in range(self.load):
            fan, author = self._random.integers(FANS * 20), self._random.integers(AUTHORS)
            yield {"type": "follow", "time": begin, "user": f"l{fan}", "target": f"a{author}"}

    def _rise(self, begin: float, length_s: float) -> Iterator[dict[str, Any]]:
        """A new author every two days of event time, with shares that grow, or end after the first day if reversed."""
        if self._steps % 6:
            return
        phase = self._steps // 6 % 16
        if phase == 0:
            self._rises += 1
        author, content = f"r{self._rises}", f"r{self._rises}-{phase}"
        if self.reversed_ and phase > 4:
            return
        yield {"type": "create", "time": begin, "user": author, "content": content}
        for fan in self._random.choice(FANS, 6 + 4 * phase, replace=False).tolist():
            at = begin + float(self._random.uniform(1, length_s))
            yield {"type": "share", "time": at, "user": f"f{fan}", "content": content}
