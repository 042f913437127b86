"""Error codes with which Kafka refuses a worker: which are transient, and the error line for each of the others.

aiokafka maps only some error codes of a consumer group to classes of their own, so the codes in the responses are used.
"""

from __future__ import annotations

from aiokafka import errors

from streams.errors import BrokerError, GroundswellError, GroupError, WorkerError, on_purpose, one_line
from streams.settings.settings import PREFIX, Settings

REFUSED_S = 120.0
"""How long usually transient refusals may last, while Kafka responds, before the worker stops."""
UNREADABLE_S = 30.0
"""How long fetches of a partition may fail with an error that is usually not transient."""

INCONSISTENT, BAD_GROUP, BAD_SESSION, NOT_ALLOWED, VERSION = 23, 24, 26, 30, 35
TOO_MANY, FENCED, ZSTD = 81, 82, 76
TRANSIENT = frozenset({0, 5, 7, 14, 15, 16, 27, 79})
"""Loading, moving or missing coordinator, rebalance, new member id: retried without limit."""
FETCH_TRANSIENT = frozenset({0, 1, 3, 5, 6, 9, 29, 56, 74, 75, 78, 100, 103})
"""Errors of a fetch: moving leaders and replicas; offsets and rights, which the client handles itself."""
NAMES = {
    -1: "UnknownServerError",
    2: "CorruptMessage",
    22: "IllegalGeneration",
    25: "UnknownMemberId",
    31: "ClusterAuthorizationFailed",
    42: "InvalidRequest",
    69: "GroupIdNotFound",
    FENCED: "FencedInstanceId",
}
_FATAL = (
    errors.IncompatibleBrokerVersion,
    errors.UnrecognizedBrokerVersion,
    errors.UnsupportedVersionError,
    errors.InconsistentGroupProtocolError,
    errors.InvalidGroupIdError,
    errors.InvalidSessionTimeoutError,
    errors.GroupAuthorizationFailedError,
)


def _name(code: int) -> str:
    name = errors.for_code(code).__name__ if code > 0 else ""
    return NAMES.get(code) or (name if name not in {"", "UnknownError"} else f"error {code}")


def group_refusal(settings: Settings, code: int) -> GroupError | None:
    """Return the error for a code after which a retry is useless; None for all others."""
    group = f"the consumer group {settings.consumer_group}"
    setting = f"{PREFIX}GROUP"
    lines = {
        INCONSISTENT: f"{group} is in use by another application (InconsistentGroupProtocol): stop its consumers, "
        f"or set {setting} to a name that only these workers use, the same for all of them",
        BAD_GROUP: f"Kafka does not accept {settings.consumer_group!r} as a consumer group (InvalidGroupId): "
        f"set {setting} to another name",
        BAD_SESSION: f"Kafka does not accept a session timeout of {settings.session_timeout_s:g} s for {group} "
        f"(InvalidSessionTimeout): set {PREFIX}SESSION_TIMEOUT_S to a value within the brokers' "
        "group.min.session.timeout.ms and group.max.session.timeout.ms",
        NOT_ALLOWED: f"Kafka does not allow the use of {group} (GroupAuthorizationFailed): grant Read on the group "
        f"to the worker's login, or set {setting} to a group that it may use",
        TOO_MANY: f"{group} is full (GroupMaxSizeReached): run fewer workers, or raise the brokers' group.max.size",
        FENCED: f"another worker joined {group} as {PREFIX}INSTANCE={settings.instance} (FencedInstanceId): "
        "give each worker a name of its own",
        VERSION: f"Kafka does not support the requests of {group} (UnsupportedVersion): use brokers of a release "
        "that the documentation names",
    }
    return GroupError(lines[code]) if code in lines else None


def group_silence(settings: Settings, what: str) -> GroupError:
    """Return the error for transient refusals that lasted longer than `REFUSED_S`.

    Args:
        settings: the settings of the worker.
        what: the last refusal.
    """
    return GroupError(
        f"the consumer group {settings.consumer_group} has refused this worker for {REFUSED_S:.0f} s (last: {what}): "
        f"look at the brokers' logs, or set {PREFIX}GROUP to another group"
    )


def fetch_refusal(topic: str, partition: int, offset: int, code: int) -> BrokerError:
    """Return the error for a partition whose records Kafka does not return."""
    where = f"{topic} partition {partition} offset {offset}"
    if code == ZSTD:
        return BrokerError(
            f"Kafka does not return {where} (UnsupportedCompressionType): it is compressed with zstd, and the "
            "brokers support only fetch requests older than version 10; set the topic's compression.type to another "
            "codec, or use Kafka 2.3 or newer"
        )
    return BrokerError(
        f"Kafka does not return {where} ({_name(code)}) for {UNREADABLE_S:.0f} s: look at the broker's log; "
        "restore the partition from another replica, or delete its records with kafka-delete-records.sh"
    )


def refusal(settings: Settings, error: BaseException) -> GroundswellError | None:
    """Return the error of one line for a client's error after which a retry is useless; None for all others."""
    if isinstance(error, errors.IncompatibleBrokerVersion | errors.UnrecognizedBrokerVersion):
        return group_refusal(settings, VERSION)
    if isinstance(error, _FATAL):
        return group_refusal(settings, int(error.errno))
    return None


def explained(settings: Settings, error: BaseException | None) -> BaseException:
    """Return the error that ended a worker as one of one line; one that was raised on purpose is returned unchanged."""
    if error is not None and on_purpose(error):
        return error
    explanation = refusal(settings, error) if error is not None else None
    explanation = explanation or WorkerError(f"the worker crashed: {type(error).__name__}: {error}")
    explanation.__cause__ = error
    return explanation


def refusal_name(error: BaseException, code: int) -> str:
    """Return the name of a refusal: that of its code if there is one, otherwise the client's error."""
    return _name(code) if code else one_line(error)
