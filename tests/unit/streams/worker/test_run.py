"""The steps before a worker joins its group, while the broker is unreachable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ssl import SSLCertVerificationError

import pytest
from kafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from streams.errors import BrokerError
from streams.kafka import topics
from streams.kafka.access import rights
from streams.settings.settings import Settings
from streams.worker import run


class Broker:
    """Fails once per cause, in this order, then succeeds.

    Args:
        causes: The cause of each error.
    """

    def __init__(self, *causes: Exception) -> None:
        self.causes = list(causes)
        self.calls = 0

    @contextmanager
    def admin(self, _settings: Settings) -> Iterator[None]:
        """Replace the admin client."""
        self.calls += 1
        if self.causes:
            cause = self.causes.pop(0)
            raise BrokerError(str(cause)) from cause
        yield


@pytest.mark.parametrize(
    ("causes", "calls", "ends"),
    [
        ([], 1, True),
        ([KafkaConnectionError(), KafkaConnectionError()], 3, True),
        ([ConnectionRefusedError(), KafkaConnectionError(), TimeoutError()], 4, True),
        ([TopicAuthorizationFailedError()], 1, False),
        ([SSLCertVerificationError()], 1, False),
        ([KafkaConnectionError(), TopicAuthorizationFailedError()], 2, False),
        ([ConnectionRefusedError()] * 100, 21, False),
    ],
)
def test_an_unreachable_broker_is_retried(
    monkeypatch: pytest.MonkeyPatch, causes: list[Exception], calls: int, ends: bool
) -> None:
    """A broker that does not answer is retried until the deadline; a refusal is not retried."""
    broker, now = Broker(*causes), [0.0]
    monkeypatch.setattr(topics, "admin", broker.admin)
    monkeypatch.setattr(rights, "require", lambda _client, _rights: None)
    monkeypatch.setattr(topics, "create", lambda _client, _specs: [])
    monkeypatch.setattr(run, "monotonic", lambda: now[0])
    monkeypatch.setattr(run, "sleep", lambda seconds: now.append(now.pop() + seconds))
    if ends:
        run._prepare(Settings.load(), lambda: False)
    else:
        with pytest.raises(BrokerError):
            run._prepare(Settings.load(), lambda: False)
    assert broker.calls == calls


def test_a_signal_ends_the_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal while the broker is unreachable ends the wait without an error."""
    broker, stopped = Broker(*[KafkaConnectionError()] * 100), [False]
    monkeypatch.setattr(topics, "admin", broker.admin)
    monkeypatch.setattr(run, "sleep", lambda _seconds: stopped.__setitem__(0, broker.calls == 3))
    run._prepare(Settings.load(), lambda: stopped[0])
    assert broker.calls == 3
