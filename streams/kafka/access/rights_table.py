"""The rights in Kafka that each command needs: the table of docs/operations.md ("TLS and logins") as code."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from streams.errors import BrokerError, NotAllowed, Right
from streams.kafka import topics
from streams.kafka.access import rights
from streams.kafka.topics import DEAD_LETTERS, RESHARD, Topics, TopicSpec
from streams.settings.settings import Settings

WEBHOOK = ".webhook"
"""Suffix of the consumer group of the alert webhook."""


def _on(operation: str, specs: Iterable[TopicSpec]) -> list[Right]:
    return [Right(operation, spec.name) for spec in specs]


def _inputs(settings: Settings) -> list[TopicSpec]:
    return list(Topics(settings).inputs.values())


def _dead_letters(settings: Settings) -> list[TopicSpec]:
    return [Topics(settings).dlq(spec) for spec in _inputs(settings)]


def worker(settings: Settings) -> list[Right]:
    """Return the rights of a worker."""
    registry, inputs = Topics(settings), _inputs(settings)
    internal = [registry.mutations, registry.halos, registry.models]
    written = [*internal, *registry.outputs, *_dead_letters(settings)]
    group = Right("read", settings.consumer_group, group=True)
    rights_of_worker = [*_on("read", [*inputs, *internal]), group, *_on("write", written)]
    if settings.alert_webhook.get_secret_value():
        rights_of_worker += [
            *_on("read", [registry.alert]),
            Right("read", settings.consumer_group + WEBHOOK, group=True),
        ]
    return [*rights_of_worker, *_on("create", registry.of_worker())]


def analyst(settings: Settings) -> list[Right]:
    """Return the rights of the analyst."""
    registry = Topics(settings)
    group = Right("read", settings.analyst_group, group=True)
    read, written = [registry.mutations, *registry.analysis], registry.analysis
    return [*_on("read", read), group, *_on("write", written), *_on("create", written)]


def create(settings: Settings) -> list[Right]:
    """Return the rights of `topics create`."""
    specs = Topics(settings).all()
    return [*_on("describe", specs), *_on("create", specs)]


def describe(settings: Settings) -> list[Right]:
    """Return the rights of `topics list` and `topics describe`."""
    group = Right("describe", settings.consumer_group, group=True)
    return [*_on("describe", Topics(settings).all()), group]


def produce(settings: Settings) -> list[Right]:
    """Return the rights of `produce`."""
    return _on("write", _inputs(settings))


def tail(settings: Settings) -> list[Right]:
    """Return the rights of `tail`."""
    registry = Topics(settings)
    return _on("read", registry.outputs)


def train(settings: Settings) -> list[Right]:
    """Return the rights of `train --topics`."""
    return _on("read", _inputs(settings))


def dlq(settings: Settings) -> list[Right]:
    """Return the rights of `dlq list` and `dlq show`."""
    group = Right("read", settings.consumer_group + DEAD_LETTERS, group=True)
    return [*_on("read", _dead_letters(settings)), group]


def dlq_replay(settings: Settings) -> list[Right]:
    """Return the rights of `dlq replay`."""
    return [*dlq(settings), *produce(settings)]


def dlq_purge(settings: Settings) -> list[Right]:
    """Return the rights of `dlq purge`."""
    return [*dlq(settings), *_on("delete", _dead_letters(settings))]


def model_use(settings: Settings) -> list[Right]:
    """Return the rights of `model use`."""
    registry = Topics(settings)
    group = Right("describe", settings.consumer_group, group=True)
    models = [registry.models]
    return [*_on("read", models), *_on("write", models), *_on("describe", [registry.mutations]), group]


def trainer(settings: Settings) -> list[Right]:
    """Return the rights of `trainer`."""
    return [*train(settings), *model_use(settings)]


def reshard(settings: Settings) -> list[Right]:
    """Return the rights of `state reshard`; those on its own topic are checked when it creates it."""
    registry = Topics(settings)
    log = registry.mutations
    rewritten = TopicSpec(log.name + RESHARD, 0, "")
    rebuilt = [log, rewritten, registry.halos]
    return [
        *(right for operation in ("create", "delete") for right in _on(operation, rebuilt)),
        *(right for operation in ("read", "write") for right in _on(operation, [log, rewritten])),
        *_on("read", [registry.alert, registry.models]),
        Right("read", settings.consumer_group, group=True),
        *_on("describe", _inputs(settings)),
    ]


def find(settings: Settings) -> list[Right]:
    """Return the rights of `state find --topics`."""
    specs = Topics(settings).all()
    return [*_on("read", specs), *_on("describe_configs", specs)]


ROWS: dict[str, Callable[[Settings], list[Right]]] = {
    "analyst": analyst,
    "topics create": create,
    "topics list, describe": describe,
    "produce": produce,
    "tail": tail,
    "train --topics": train,
    "dlq list, show": dlq,
    "dlq replay": dlq_replay,
    "dlq purge": dlq_purge,
    "model use": model_use,
    "state reshard": reshard,
    "state find --topics": find,
}
"""The rights of each command other than `worker`."""


def examine(settings: Settings, timeout_s: float) -> str:
    """Check every right of the table.

    Args:
        settings: the settings of the user.
        timeout_s: seconds to wait for Kafka and for the group's coordinator.

    Returns:
        A line for people, with the commands for which rights are missing.

    Raises:
        NotAllowed: rights of a worker are missing.
    """
    with topics.admin(settings, timeout_s) as client:
        needed = worker(settings)
        rows = {name: row(settings) for name, row in ROWS.items()}
        every = [*needed, *(right for row in rows.values() for right in row)]
        missing = set(rights.lacking(client, every, timeout_s))
        hidden = {right.name for right in missing if right.operation == "describe" and not right.group}
        # A topic that may not be described cannot be read or written either, whatever else is granted.
        lacks = [Right("describe", name) for name in dict.fromkeys(right.name for right in needed) if name in hidden]
        lacks += [
            right for right in needed if right in missing or (right.name in hidden and right.operation != "create")
        ]
        if lacks:
            raise NotAllowed(lacks)
    missing_by_command = {
        name: [right for right in row if right in missing or right.name in hidden] for name, row in rows.items()
    }
    other = ", ".join(f"`{name}` ({NotAllowed(lacks).listed()})" for name, lacks in missing_by_command.items() if lacks)
    return f"{rights.user(settings)} has those of a worker" + (f"; missing for {other}" if other else "")


def explained(settings: Settings, error: BaseException) -> NotAllowed | None:
    """Return the missing right that caused an error of a worker, as Kafka reports it now; None for any other cause."""
    refusal = rights.refusal(error, settings)
    if refusal is None:
        return None
    try:
        with topics.admin(settings) as client:
            rights.require(client, worker(settings))
    except BrokerError as exact:
        return exact if isinstance(exact, NotAllowed) else refusal
    return refusal
