"""Examples that `--help` shows, by command; a test runs or parses each one in the order below.

They share a folder: `events.parquet` is written by the example of `simulate`.
"""

from __future__ import annotations

from typing import Any

EXAMPLES: dict[str, tuple[str, ...]] = {
    "simulate": ("groundswell simulate --users 200 --communities 4 --days 12 --out events.parquet",),
    "replay": (
        "groundswell replay events.parquet --out scores",
        "groundswell replay events.parquet --out checked --until 2015-01-08T00:00:00Z --json",
    ),
    "topics create": ("groundswell topics create",),
    "topics list": ("groundswell topics list --json",),
    "produce": (
        "groundswell produce events.parquet --check",
        "groundswell produce events.parquet --rate 5000",
        """echo '{"type": "follow", "time": 1420934400, "user": "ana", "target": "bo"}' | groundswell produce -""",
    ),
    "topics describe": ("groundswell topics describe influence.share.v1",),
    "worker": ("groundswell worker", "groundswell worker --alert-topics 'birds=2,community:jazz,*'"),
    "analyst": ("groundswell analyst",),
    "demo": (
        "groundswell demo --open",
        "groundswell demo --minutes 1 --json",
        "groundswell demo --replay events.parquet --rate 0",
    ),
    "tail scores": ("groundswell tail scores --from-beginning --limit 5",),
    "tail alerts": ("groundswell tail alerts --json",),
    "tail outcomes": ("groundswell tail outcomes --from-beginning",),
    "tail centrality": ("groundswell tail centrality --limit 10 --json",),
    "tail communities": ("groundswell tail communities --limit 10 --json",),
    "tail topics": ("groundswell tail topics --from-beginning --limit 5",),
    "tail seeds": ("groundswell tail seeds --limit 1 --json",),
    "top": ("groundswell top --limit 5", "groundswell top --tier nano --by growth --topic birds --json"),
    "query": (
        """groundswell query "RANK TOP 20 users BY reach WHERE tier = micro\"""",
        "groundswell query 'SHOW user u1' --json",
    ),
    "compare": ("groundswell compare u1 u2",),
    "model explain": ("groundswell model explain u1",),
    "bots": ("groundswell bots", "groundswell bots u1 --json"),
    "seeds": ("groundswell seeds -k 10 --followers 5", "groundswell seeds --model ic --probability 0.05 --json"),
    "diffuse": ("groundswell diffuse u1 u2 --probability learned",),
    "train": (
        "groundswell train events.parquet --out artifact --floor auto",
        "groundswell train --simulate many --worlds 24 --out artifact",
    ),
    "train-next": ("groundswell train-next events.parquet --out next",),
    "evaluate": (
        "groundswell evaluate events.parquet --alerts",
        "groundswell evaluate events.parquet --html report.html",
    ),
    "trainer": ("groundswell trainer", "groundswell trainer --once --json"),
    "model show": ("groundswell model show --json",),
    "model use": ("groundswell model use artifact", "groundswell model use --packaged"),
    "model history": ("groundswell model history",),
    "state inspect": ("groundswell state inspect --no-count",),
    "state verify": ("groundswell state verify",),
    "state checkpoint": ("groundswell state checkpoint",),
    "state checkpoints": ("groundswell state checkpoints",),
    "state restore": ("groundswell state restore --force",),
    "state find": ("groundswell state find u1 --topics",),
    "state reshard": ("groundswell state reshard --to 4 --dry-run",),
    "export": (
        "groundswell export --registry http://registry:8081",
        "groundswell export alert outcome --registry http://registry:8081 --stop-at-end --json",
    ),
    "dlq list": ("groundswell dlq list",),
    "dlq show": ("groundswell dlq show share --limit 3 --full",),
    "dlq replay": ("groundswell dlq replay share --reason json --dry-run",),
    "dlq purge": ("groundswell dlq purge share --replayed --yes",),
    "config": ("groundswell config", "GROUNDSWELL_SHARDS=2 groundswell config --json"),
    "doctor": ("groundswell doctor",),
}
"""`connect` has its examples in its own text."""


def add_to(command: Any, path: str) -> None:
    """Add the examples to the end of a command's help; to those of its commands if it is a group.

    Args:
        command: a click command.
        path: its name, without that of the program.
    """
    for name, child in getattr(command, "commands", {}).items():
        add_to(child, f"{path} {name}")
    if lines := EXAMPLES.get(path):
        # The mark keeps click from filling the lines as a paragraph.
        command.epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
