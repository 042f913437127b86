"""Every error that streams raises on purpose; the message of each says what to do.

    GroundswellError              one line for a person, exit code 1
    ├── SettingsError             a setting is wrong or two do not go together
    ├── BrokerError               Kafka cannot be reached, refused us, or answered something odd
    │   ├── TopicError            a topic is missing or is not as the registry says
    │   ├── GroupError            the consumer group refuses the worker for good
    │   ├── UnreadableBatch       a record batch that cannot be decoded
    │   ├── NotAllowed            a right in Kafka is missing
    │   └── EmbeddedKafkaError    the embedded Kafka could not be fetched or started
    ├── InputError                a file or an argument that a command was given cannot be used
    ├── ModelRefused              an artifact that cannot take over from the one in use
    ├── BadEvent                  a message that goes to the dead letters, with a reason
    ├── DeadLetterFlood           too many bad messages in a row: stop rather than dump everything
    ├── StateError                the local state cannot be used
    │   └── StaleStep             a step that was not committed: open the shard again
    │       └── LeaseLost         ... because the group may have given the partitions away
    └── WorkerError               the worker had to stop

`BadEvent` carries the good part of its message, see its docstring. The packages graphstate and
model have trees of their own; `on_purpose` knows all three, `one_line` makes one line of any error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any, NamedTuple, Self


class GroundswellError(Exception):
    """The base of all; `str()` of it is the line that a person reads."""


class SettingsError(GroundswellError):
    """A setting is wrong or two of them do not go together."""


class BrokerError(GroundswellError):
    """Kafka cannot be reached, refused us, or answered something unexpected."""


class TopicError(BrokerError):
    """A topic is missing or is not as the registry says."""


class GroupError(BrokerError):
    """The consumer group refuses the worker for good."""


class UnreadableBatch(BrokerError):
    """A record batch that cannot be decoded."""


class Right(NamedTuple):
    """A right in Kafka: an operation (`read`) on a topic or a group."""

    operation: str
    name: str
    group: bool = False

    @property
    def target(self) -> str:
        """The name, marked if it is a group's."""
        return f"group {self.name}" if self.group else self.name


class NotAllowed(BrokerError):
    """Rights of the user in Kafka are missing.

    Attributes:
        rights: those that are.
        user: of the connection; empty: not known here.
        why: Kafka's own words, where no right can be named.
    """

    TABLE = "see the table of rights in docs/operations.md"

    def __init__(self, rights: Iterable[Right], user: str = "", why: str = "") -> None:
        self.rights, self.user, self.why = tuple(rights), user, why
        text, whom = self.listed(), f" as {user}" if user else ""
        line = f"not allowed to {text}{whom}" if text else f"not allowed{whom} ({why})"
        super().__init__(f"{line}; {self.TABLE}")

    def listed(self) -> str:
        """The rights, by operation."""
        by_operation: dict[str, list[str]] = {}
        for right in self.rights:
            by_operation.setdefault(right.operation, []).append(right.target)
        return "; ".join(
            f"{operation.replace('_', ' ')} {', '.join(names)}" for operation, names in by_operation.items()
        )

    def of(self, user: str) -> Self:
        """The same with the user named."""
        return self if self.user else type(self)(self.rights, user, self.why)


class EmbeddedKafkaError(BrokerError):
    """The embedded Kafka could not be fetched or started."""


class InputError(GroundswellError):
    """A file or an argument that a command was given cannot be used."""


class ModelRefused(GroundswellError):
    """An artifact that cannot take over from the one in use, which goes on."""


class BadEvent(GroundswellError):
    """A message with at least one event that cannot be accepted.

    Attributes:
        reason: a short slug, the label of the dead letter metric (`json`, `utf8`, `time`, ...).
        good: the mutations of the good events of the same message; they are scored all the same.
    """

    def __init__(self, reason: str, message: str, good: list[Any] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.good: list[Any] = [] if good is None else good


class DeadLetterFlood(GroundswellError):
    """Too many bad messages in a row: the input is not what this worker expects."""


class StateError(GroundswellError):
    """The local state cannot be used."""


class StaleStep(StateError):
    """A step was taken and not committed; the shard must be closed and opened again."""


class LeaseLost(StaleStep):
    """The group may have given our partitions away: what was begun is neither written nor acknowledged."""


class WorkerError(GroundswellError):
    """The worker had to stop."""


def one_line(error: BaseException) -> str:
    """The message of `error` on one line; its class's name where the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__


def reason(error: BaseException) -> str:
    """Why the system refused, without the number and the name of the file; else the whole message on one line."""
    return error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)


def on_purpose(error: BaseException) -> bool:
    """Whether the error belongs to one of the three trees, so that its message is for a person.

    The other two are looked up among what is imported: a tree that never was raised nothing.
    """
    trees = ((sys.modules.get("graphstate.errors"), "GraphError"), (sys.modules.get("model.errors"), "ModelError"))
    bases = tuple(getattr(module, name) for module, name in trees if isinstance(module, ModuleType))
    return isinstance(error, (GroundswellError, *bases))
