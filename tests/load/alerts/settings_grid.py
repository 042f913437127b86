"""Figures of the alert rule by its settings, as `groundswell evaluate --alerts` has them.

`python -m tests.load.alerts.settings_grid FILE` changes each setting alone, and leaves out all baselines but the
decayed counter.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from model.artifact import Artifact
from streams.messages.files import event_files
from streams.offline.alert_evaluation import COUNTER, SHIPPED, compare_rules
from streams.settings.settings import Settings
from streams.shard.alerts.alert_rule import alert_rule

DAY_S = 86_400
GRID: tuple[dict[str, int], ...] = (
    {},
    {"alert_window_s": DAY_S},
    {"alert_window_s": 7 * DAY_S},
    {"alert_steps": 4},
    {"alert_steps": 24},
    {"alert_budget": 1},
    {"alert_budget": 10},
    {"alert_floor": 0},
    {"alert_floor": 20},
    {"alert_new_sharers": 1},
    {"alert_new_sharers": 5},
)


def main() -> None:
    """Print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("file", type=Path)
    parser.add_argument("--until", default=None, help="only events before this time")
    parser.add_argument("--only", default="", help="numbers of some lines of the grid, separated by commas")
    options = parser.parse_args()
    events = sorted(event_files.mutations(options.file, until=options.until), key=lambda event: event.time)
    artifact = Artifact.default()
    places = [int(number) for number in options.only.split(",")] if options.only else range(len(GRID))
    for changed in (GRID[place] for place in places):
        rule = alert_rule(Settings.load(**changed), artifact.config.horizon_s)
        found = compare_rules(events, artifact, 0, events[-1].time, [COUNTER], rule=rule)
        row: dict[str, Any] = {"settings": changed}
        for name in (SHIPPED, COUNTER):
            metrics = found.metrics[name]
            row[name] = {
                "alerts": metrics.alerts,
                "precision": metrics.precision.text(),
                "in time": metrics.ahead.text(),
                "recall": metrics.recall.text(),
                "lead_h": round(metrics.lead_s.value / 3_600, 1),
            }
        ended = Counter(end[0] if end else "open" for end in found.record.values())
        sys.stdout.write(json.dumps(row | {"breakouts": len(found.truth.author), "outcomes": dict(ended)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
