"""Card of an artifact of who acts next: its data, the command, and measured figures."""

from __future__ import annotations

from importlib.metadata import version

from model.config import duration_text
from model.next_action.artifact import NextActionConfig
from model.next_action.features import FEATURES
from model.next_action.timeline import FOREVER
from model.next_action.training import Judged

SECOND_US = 1_000_000
SHOWN = 12


def card(config: NextActionConfig, judged: Judged, command: str, data: str, seconds: float) -> str:
    """Return the card as Markdown.

    Args:
        config: of the artifact.
        judged: the figures.
        command: repeats the training.
        data: what was learned from.
        seconds: duration of the training.
    """
    memory = "all of the past" if config.memory_us == FOREVER else duration_text(config.memory_us / SECOND_US)
    learned, validated, tested = judged.sizes
    asked = judged.asked
    about = (
        "Predicts which users who are exposed to a post (they follow a user that acted on it) share it within "
        f"{duration_text(config.horizon_us / SECOND_US)}. Features read {memory} before the moment."
    )
    origin = f"Data: {data}; seed {config.seed}; {seconds:.0f} s with lightgbm {version('lightgbm')}."
    protocol = (
        "Area under the ROC curve, one share to three exposed users that never share the post, at the same moment: "
        f"{learned:,} examples teach, {validated:,} stop the fit, {tested:,} of later posts judge; 95 % bootstrap "
        "intervals over examples."
    )
    served = (
        f"The served probability, on {asked.users:,} exposed users at moments of later posts, of which "
        f"{asked.shared:.4f} shared: AUC {asked.auc.text()}, log loss {asked.log_loss:.4f} (one constant: "
        f"{asked.constant_loss:.4f})."
    )
    gains = ", ".join(f"{name} {gain:.3f}" for name, gain in list(judged.gains.items())[:SHOWN])
    limits = (
        "It covers exposed users only; people find posts in other ways, too. It predicts, and names no causes. "
        "Where behaviour differs from the data above, train on your own events."
    )
    lines = [
        "# Model card", "", about, "", "## Made by", "", "```sh", command, "```", "", origin, "", "## How good", "",
        protocol, "", "| model | active followed users | AUC | ms per 1,000 candidates |", "|---|---|---|---|",
        *(f"| {row.name} | ≥ {row.active} | {row.auc.text()} | {row.ms:.1f} |" for row in judged.rows), "", served, "",
        "| tenth by probability | predicted | observed |", "|---|---|---|",
        *(f"| {i} | {tenth.predicted:.4f} | {tenth.observed:.4f} |" for i, tenth in enumerate(asked.tenths, 1)), "",
        "## Features", "", f"Part of the gain: {gains}.", "", f"All: {', '.join(FEATURES)}.", "",
        "## Limits", "", limits,
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def summary(judged: Judged) -> dict[str, object]:
    """Return the figures for `--json`."""
    asked = judged.asked
    return {
        "examples": dict(zip(("train", "validation", "test"), judged.sizes, strict=True)),
        "table": [
            {"model": row.name, "active": row.active, "auc": row.auc.row(), "ms_per_1000": round(row.ms, 2)}
            for row in judged.rows
        ],
        "asked": {
            "users": asked.users, "shared": asked.shared, "auc": asked.auc.row(), "log_loss": asked.log_loss,
            "constant_log_loss": asked.constant_loss,
            "tenths": [[tenth.predicted, tenth.observed] for tenth in asked.tenths],
        },
        "gains": {name: round(gain, 4) for name, gain in judged.gains.items()},
    }  # fmt: skip
