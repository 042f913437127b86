"""The rights of a user in Kafka: finds missing ones without side effects, and names them in the error.

A list of topics omits those that the user may not describe, so each topic is requested by its name: Kafka answers
TOPIC_AUTHORIZATION_FAILED for a hidden topic, whether it exists or not, and UNKNOWN_TOPIC_OR_PARTITION for a missing
one. For each topic that is not hidden it reports the operations that the user may do. The right to a group is tried
with a heartbeat of an unknown member, which Kafka refuses for the missing right first.
`streams/kafka/access/rights_table.py` lists the rights of each command.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kafka import KafkaAdminClient
from kafka.errors import CoordinatorNotAvailableError, GroupAuthorizationFailedError, KafkaError
from kafka.protocol.consumer import HeartbeatRequest

from streams.errors import NotAllowed, Right, one_line
from streams.settings.oauth import MECHANISM, tokens

if TYPE_CHECKING:
    from streams.settings.settings import Settings

TOPIC, GROUP, CLUSTER, TRANSACTION = 29, 30, 31, 53
"""Kafka's error codes for a missing right."""
REFUSALS = frozenset((TOPIC, GROUP, CLUSTER, TRANSACTION))
RETRY_S = 0.2
"""Pause before a request to a missing coordinator is sent again."""


def user(settings: Settings) -> str:
    """Return the user of these settings, as far as the client side has the name."""
    if settings.security_protocol.startswith("SASL"):
        return tokens(settings).user if settings.sasl_mechanism == MECHANISM else settings.sasl_username
    return f"the owner of {settings.ssl_certfile}" if settings.ssl_certfile else "ANONYMOUS"


def refused(error: BaseException) -> bool:
    """Whether an error of either client, or its cause, means that a right is missing."""
    return _cause(error) is not None


def _cause(error: BaseException | None) -> BaseException | None:
    """Return the refusal for a missing right among an error and its causes; None if there is none."""
    while error is not None and (getattr(error, "errno", None) not in REFUSALS or isinstance(error, OSError)):
        error = error.__cause__
    return error


def refusal(error: BaseException, settings: Settings, *rights: Right) -> NotAllowed | None:
    """Return the error of one line for an error of either client; None if no right is missing.

    Args:
        error: the error.
        settings: the settings of the client.
        rights: the rights that the request needed, for an error that does not name its topics.
    """
    if isinstance(error, NotAllowed):
        return error.of(user(settings))
    cause = _cause(error)
    if cause is None:
        return None
    named, code = tuple(dict.fromkeys(_names(cause.args))), getattr(cause, "errno", None)
    if code == TOPIC and named and all(right.name not in named for right in rights):
        rights = tuple(Right("access", name) for name in named)
    elif code == TOPIC and named:
        rights = tuple(right for right in rights if right.name in named)
    elif code == CLUSTER and not rights:
        rights = (Right("write with idempotence to", "the cluster"),)
    elif code == GROUP:
        rights = tuple(right for right in rights if right.group) or (
            Right("read", settings.consumer_group, group=True),
        )
    elif code == TRANSACTION:
        rights = tuple(Right("write with the transactional id", name) for name in named)
    return NotAllowed(rights, user(settings), "" if rights else one_line(cause))


def _names(arguments: Iterable[Any]) -> Iterable[str]:
    """Yield the topic names among the arguments of an error; an argument with a space is a text."""
    for argument in arguments:
        if isinstance(argument, str):
            if argument and " " not in argument:
                yield argument
        elif isinstance(argument, Iterable):
            yield from _names(argument)


def absent(client: KafkaAdminClient, names: Iterable[str]) -> list[str]:
    """Return the topics that do not exist, in the order given.

    Raises:
        NotAllowed: the user may not describe a topic, so its existence is unknown.
    """
    described = _describe(client, names)
    hidden = [Right("describe", name) for name, topic in described.items() if topic["error_code"] == TOPIC]
    if hidden:
        raise NotAllowed(hidden)
    return [name for name, topic in described.items() if not topic["partitions"]]


def hidden(client: KafkaAdminClient, names: Iterable[str]) -> list[str]:
    """Return the topics that the user may not describe, whether they exist or not."""
    return [name for name, topic in _describe(client, names).items() if topic["error_code"] == TOPIC]


def require(
    client: KafkaAdminClient, rights: Iterable[Right], wait_s: float = 0.0, *, existing_too: bool = False
) -> None:
    """Check rights; the arguments are those of `lacking`.

    Raises:
        NotAllowed: rights are missing; the error names each.
    """
    missing = lacking(client, rights, wait_s, existing_too=existing_too)
    if missing:
        raise NotAllowed(missing)


def lacking(
    client: KafkaAdminClient, rights: Iterable[Right], wait_s: float = 0.0, *, existing_too: bool = False
) -> list[Right]:
    """Return the rights that are certainly missing; a right that Kafka does not report counts as granted.

    Args:
        client: an admin client.
        rights: the rights to check. The right to create is checked only for a missing topic.
        wait_s: seconds to wait for a group's coordinator, which a Kafka without consumers does not have yet; without a
            coordinator the right to the group is not checked.
        existing_too: check the right to create also for topics that exist.
    """
    wanted = list(dict.fromkeys(rights))
    described = _describe(client, [right.name for right in wanted if not right.group])
    missing: list[Right] = []
    cluster: list[str] | None = None
    for right in wanted:
        if right.group:
            missing += [right] if _group_lacks(client, right, wait_s) else []
            continue
        topic = described[right.name]
        granted = topic.get("authorized_operations") or []
        if topic["error_code"] == TOPIC:
            missing.append(Right("describe", right.name))
        elif right.operation == "create":
            if (existing_too or not topic["partitions"]) and "DESCRIBE" in granted and "CREATE" not in granted:
                cluster = _cluster_operations(client) if cluster is None else cluster
                missing += [right] if "CREATE" not in cluster else []
        # An old Kafka, or one without an authorizer, reports all operations or none; any other report has DESCRIBE.
        elif "DESCRIBE" in granted and right.operation.upper() not in granted:
            missing.append(right)
    return list(dict.fromkeys(missing))


def _describe(client: KafkaAdminClient, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return {}
    described = {topic["name"]: topic for topic in client.describe_topics(wanted)}
    return {name: described[name] for name in wanted}


def _cluster_operations(client: KafkaAdminClient) -> list[str]:
    """Return the operations that the user may do on the whole cluster."""
    return client.describe_cluster().get("authorized_operations") or []


def _group_lacks(client: KafkaAdminClient, right: Right, wait_s: float) -> bool:
    """Whether the right to a group is certainly missing."""
    end = time.monotonic() + wait_s
    while True:
        try:
            return _heartbeat(client, right) == GROUP
        except GroupAuthorizationFailedError:
            return True
        except CoordinatorNotAvailableError:
            if time.monotonic() >= end:
                return False
        except KafkaError as error:
            if not error.retriable or time.monotonic() >= end:
                raise
        time.sleep(RETRY_S)


def _heartbeat(client: KafkaAdminClient, right: Right) -> int:
    """Return the error code of a heartbeat of an unknown member; finding its coordinator needs `describe`."""
    manager, find = client._manager, client._find_coordinator_id  # noqa: SLF001 - no public method
    coordinator = manager.run(find, right.name)
    if right.operation == "describe":
        return 0
    request = HeartbeatRequest(group_id=right.name, generation_id=-1, member_id="", group_instance_id=None)

    async def send() -> Any:
        return await manager.send(request, node_id=coordinator)

    return int(manager.run(send).error_code)
