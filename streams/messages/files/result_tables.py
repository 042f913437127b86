"""Scores, alerts and outcomes as Parquet tables: `scores.parquet`, `alerts.parquet`, `outcomes.parquet` of a replay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from streams.messages.outputs import Alert, AlertOutcome

_TIME = pa.timestamp("us", tz="UTC")
SCORE_SCHEMA = pa.schema(
    [("user", pa.string()), ("reach", pa.float64()), ("percentile", pa.float64()), ("as_of", _TIME)]
)
"""Columns of `scores.parquet`: the fields of `Score`."""
ALERT_SCHEMA = pa.schema(
    [
        ("alert", pa.string()), ("user", pa.string()), ("as_of", _TIME), ("velocity", pa.float64()),
        ("level", pa.int64()), ("reach", pa.float64()), ("percentile", pa.float64()),
        ("new_sharers", pa.int64()), ("content", pa.string()), ("rising_s", pa.float64()),
        ("sharers", pa.list_(pa.string())), ("topics", pa.list_(pa.string())),
    ]
)  # fmt: skip
"""Columns of `alerts.parquet`: the fields of `Alert`."""
OUTCOME_SCHEMA = pa.schema(
    [
        ("alert", pa.string()), ("user", pa.string()), ("outcome", pa.string()), ("as_of", _TIME),
        ("lead_s", pa.float64()),
    ]
)  # fmt: skip
"""Columns of `outcomes.parquet`: the fields of `AlertOutcome`."""


def score_table(
    users: Sequence[str],
    reach: NDArray[np.float64],
    percentile: NDArray[np.float64],
    as_of: NDArray[np.int64],
) -> pa.Table:
    """Return scores as a table, from the columns of `Score`; as_of in µs."""
    columns = [pa.array(users, pa.string()), pa.array(reach), pa.array(percentile), pa.array(as_of).cast(_TIME)]
    return pa.table(columns, schema=SCORE_SCHEMA)


def alert_table(alerts: Iterable[Alert]) -> pa.Table:
    """Return alerts as a table, in the given order."""
    return pa.Table.from_pylist([alert._asdict() for alert in alerts], schema=ALERT_SCHEMA)


def outcome_table(outcomes: Iterable[AlertOutcome]) -> pa.Table:
    """Return outcomes of alerts as a table, in the given order."""
    return pa.Table.from_pylist([outcome._asdict() for outcome in outcomes], schema=OUTCOME_SCHEMA)


def write_results(out: Path, scores: pa.Table, alerts: pa.Table, outcomes: pa.Table) -> None:
    """Write the tables into a folder."""
    pq.write_table(scores, out / "scores.parquet")
    pq.write_table(alerts, out / "alerts.parquet")
    pq.write_table(outcomes, out / "outcomes.parquet")
