"""The rights of a user in Kafka: which are missing, asked without side effects, and the line that names them.

Listing topics leaves out those that the user may not describe, so a topic is asked for by its name: Kafka answers
TOPIC_AUTHORIZATION_FAILED for a name that it hides, whether the topic exists or not, and UNKNOWN_TOPIC_OR_PARTITION for
one that is absent. For each topic that is not hidden it reports the operations that the user may do. For a group a
heartbeat of no member is refused for the missing right first. `streams/kafka/access/rights_table.py` lists what
each command needs.
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
"""Kafka's codes of a refused authorization."""
REFUSALS = frozenset((TOPIC, GROUP, CLUSTER, TRANSACTION))
AGAIN_S = 0.2


def user(settings: Settings) -> str:
    """The user of these settings as far as this side of the connection knows it."""
    if settings.security_protocol.startswith("SASL"):
        return tokens(settings).user if settings.sasl_mechanism == MECHANISM else settings.sasl_username
    return f"the owner of {settings.ssl_certfile}" if settings.ssl_certfile else "ANONYMOUS"


def refused(error: BaseException) -> bool:
    """Whether Kafka refused for a missing right; of either client, also as the cause of another error."""
    return _cause(error) is not None


def _cause(error: BaseException | None) -> BaseException | None:
    """The refusal behind an error."""
    while error is not None and (getattr(error, "errno", None) not in REFUSALS or isinstance(error, OSError)):
        error = error.__cause__
    return error


def refusal(error: BaseException, settings: Settings, *rights: Right) -> NotAllowed | None:
    """The line for an error of either client, or None if no right is missing.

    rights: what was being done, for an error that does not name its topics.
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
    """The names of topics among the arguments of an error; what has a space is a text."""
    for argument in arguments:
        if isinstance(argument, str):
            if argument and " " not in argument:
                yield argument
        elif isinstance(argument, Iterable):
            yield from _names(argument)


def absent(client: KafkaAdminClient, names: Iterable[str]) -> list[str]:
    """The topics that do not exist, in the order given.

    Raises:
        NotAllowed: one may not be described, so it cannot be known.
    """
    found = _described(client, names)
    hidden = [Right("describe", name) for name, about in found.items() if about["error_code"] == TOPIC]
    if hidden:
        raise NotAllowed(hidden)
    return [name for name, about in found.items() if not about["partitions"]]


def hidden(client: KafkaAdminClient, names: Iterable[str]) -> list[str]:
    """The topics that may not be described, whether they exist or not."""
    return [name for name, about in _described(client, names).items() if about["error_code"] == TOPIC]


def require(client: KafkaAdminClient, rights: Iterable[Right], wait_s: float = 0.0, *, again: bool = False) -> None:
    """Try rights; the arguments are those of `lacking`.

    Raises:
        NotAllowed: some are missing; the line names each.
    """
    missing = lacking(client, rights, wait_s, again=again)
    if missing:
        raise NotAllowed(missing)


def lacking(
    client: KafkaAdminClient, rights: Iterable[Right], wait_s: float = 0.0, *, again: bool = False
) -> list[Right]:
    """The rights that are surely missing; what Kafka does not report counts as there.

    Args:
        client: an admin client.
        rights: what to try. The right to create counts only for a topic that is absent.
        wait_s: how long to wait for a group's coordinator, which a fresh Kafka does not have; without one the right to
            the group is not tried.
        again: the right to create counts for topics that exist too.
    """
    wanted = list(dict.fromkeys(rights))
    found = _described(client, [right.name for right in wanted if not right.group])
    missing: list[Right] = []
    cluster: list[str] | None = None
    for right in wanted:
        if right.group:
            missing += [right] if _group_lacks(client, right, wait_s) else []
            continue
        about = found[right.name]
        granted = about.get("authorized_operations") or []
        if about["error_code"] == TOPIC:
            missing.append(Right("describe", right.name))
        elif right.operation == "create":
            if (again or not about["partitions"]) and "DESCRIBE" in granted and "CREATE" not in granted:
                cluster = _on_cluster(client) if cluster is None else cluster
                missing += [right] if "CREATE" not in cluster else []
        # Without an authorizer, or of an old release, Kafka reports all or nothing; who may describe has that at least.
        elif "DESCRIBE" in granted and right.operation.upper() not in granted:
            missing.append(right)
    return list(dict.fromkeys(missing))


def _described(client: KafkaAdminClient, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return {}
    found = {topic["name"]: topic for topic in client.describe_topics(wanted)}
    return {name: found[name] for name in wanted}


def _on_cluster(client: KafkaAdminClient) -> list[str]:
    """The operations that are allowed on the whole cluster."""
    return client.describe_cluster().get("authorized_operations") or []


def _group_lacks(client: KafkaAdminClient, right: Right, wait_s: float) -> bool:
    """Whether the right to a group is surely missing."""
    end = time.monotonic() + wait_s
    while True:
        try:
            return _beat(client, right) == GROUP
        except GroupAuthorizationFailedError:
            return True
        except CoordinatorNotAvailableError:
            if time.monotonic() >= end:
                return False
        except KafkaError as error:
            if not error.retriable or time.monotonic() >= end:
                raise
        time.sleep(AGAIN_S)


def _beat(client: KafkaAdminClient, right: Right) -> int:
    """What Kafka answers to a heartbeat of no member; a coordinator is found only for those who may describe it."""
    manager, find = client._manager, client._find_coordinator_id  # noqa: SLF001 - there is no public way to ask
    coordinator = manager.run(find, right.name)
    if right.operation == "describe":
        return 0
    request = HeartbeatRequest(group_id=right.name, generation_id=-1, member_id="", group_instance_id=None)

    async def send() -> Any:
        return await manager.send(request, node_id=coordinator)

    return int(manager.run(send).error_code)
