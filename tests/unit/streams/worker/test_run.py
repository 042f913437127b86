"""What a worker does before it joins, when the broker goes away just then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ssl import SSLCertVerificationError

import pytest
from kafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from streams.errors import BrokerError
from streams.kafka import topics
from streams.settings.settings import Settings
from streams.worker import run


class Broker:
    """Fails in this order, each time with an error of this cause, and then no more."""

    def __init__(self, *causes: Exception) -> None:
        self.causes = list(causes)
        self.asked = 0

    @contextmanager
    def admin(self, _settings: Settings) -> Iterator[None]:
        """In place of the admin client."""
        self.asked += 1
        if self.causes:
            cause = self.causes.pop(0)
            raise BrokerError(str(cause)) from cause
        yield


@pytest.mark.parametrize(
    ("causes", "asked", "ends"),
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
def test_a_broker_that_is_away_has_some_seconds(
    monkeypatch: pytest.MonkeyPatch, causes: list[Exception], asked: int, ends: bool
) -> None:
    """Who does not answer is asked again for a while; who refuses is not."""
    broker, now = Broker(*causes), [0.0]
    monkeypatch.setattr(topics, "admin", broker.admin)
    monkeypatch.setattr(topics, "create", lambda _client, _specs: [])
    monkeypatch.setattr(run, "monotonic", lambda: now[0])
    monkeypatch.setattr(run, "sleep", lambda seconds: now.append(now.pop() + seconds))
    if ends:
        run._prepare(Settings.load(), lambda: False)
    else:
        with pytest.raises(BrokerError):
            run._prepare(Settings.load(), lambda: False)
    assert broker.asked == asked


def test_who_is_told_to_stop_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes while the broker is away ends the wait, without an error."""
    broker, stopped = Broker(*[KafkaConnectionError()] * 100), [False]
    monkeypatch.setattr(topics, "admin", broker.admin)
    monkeypatch.setattr(run, "sleep", lambda _seconds: stopped.__setitem__(0, broker.asked == 3))
    run._prepare(Settings.load(), lambda: stopped[0])
    assert broker.asked == 3
