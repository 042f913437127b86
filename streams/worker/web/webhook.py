"""The webhook: sends every alert of the alert topic to an address, in the order of each user.

A consumer group of its own holds the position, so an alert is committed only after the address has accepted it: each
alert arrives once or more. The alerts of a partition, and so of a user, are sent one after the other. One that is
refused is sent again, with growing pauses, and dropped after a set time. With several workers, Kafka gives each some
of the partitions.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from streams.errors import one_line
from streams.kafka.access.rights_table import WEBHOOK
from streams.kafka.topics import Topics
from streams.messages.alert_text import sentence, slack_text
from streams.settings.connection import aiokafka_arguments
from streams.settings.settings import Settings
from streams.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
PAUSE_S, PAUSE_MAX_S = 0.5, 60.0
RECORDS = 100
POLL_MS = 500
BROKER_PAUSE_S = 5.0


def body(value: bytes, form: str) -> bytes:
    """Return the body of a request for an alert message, in a form: `json` or `slack`."""
    alert = json.loads(value)
    message = {"text": slack_text(alert)} if form == "slack" else {**alert, "text": sentence(alert)}
    return json.dumps(message, ensure_ascii=False).encode()


def signature(secret: str, at_s: int, content: bytes) -> str:
    """Return the header of a signed body: the time (s), and the HMAC-SHA256 of time, dot and body, in hex."""
    signed = hmac.new(secret.encode(), f"{at_s}.".encode() + content, sha256).hexdigest()
    return f"t={at_s},v1={signed}"


class AlertWebhook(ConsumerRebalanceListener):
    """Sends alerts until it is cancelled.

    Args:
        settings: Address, form, secret and time limit.
        metrics: Counts what is sent.
        now: Monotonic seconds.
    """

    def __init__(self, settings: Settings, metrics: Metrics, now: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._metrics, self._now = settings, metrics, now
        self._topic = Topics(settings).alert.name
        self._tasks: dict[TopicPartition, asyncio.Task[None]] = {}
        self._waiting_since: dict[TopicPartition, float] = {}
        self._consumer: Any = None

    async def run(self) -> None:
        """Send alerts; errors of Kafka are logged and lead to a new connection."""
        while True:
            try:
                await self._run()
            except KafkaError as error:
                log.warning("webhook_consumer_failed", extra={"error": one_line(error)})
                await asyncio.sleep(BROKER_PAUSE_S)

    async def _run(self) -> None:
        self._consumer = AIOKafkaConsumer(
            **aiokafka_arguments(self._settings),
            group_id=self._settings.consumer_group + WEBHOOK,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        try:
            async with ClientSession(timeout=ClientTimeout(total=TIMEOUT_S)) as session:
                await self._consumer.start()
                self._consumer.subscribe([self._topic], listener=self)
                while True:
                    self._raise_failures()
                    polled = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS)
                    for partition, records in polled.items():
                        self._consumer.pause(partition)
                        self._tasks[partition] = asyncio.create_task(self._send_all(session, partition, records))
        finally:
            await self._cancel()
            await self._consumer.stop()

    def _raise_failures(self) -> None:
        for partition, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[partition]
                task.result()

    async def _cancel(self) -> None:
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        self._waiting_since = {}
        self._measure()

    # Rebalances

    async def on_partitions_revoked(self, _revoked: Iterable[TopicPartition]) -> None:
        """Stop all requests: another worker continues at the committed positions."""
        await self._cancel()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Commit the end of partitions without a position: alerts from before the webhook was set are not sent."""
        partitions = list(assigned)
        # The consumer may fetch from the beginning meanwhile.
        self._consumer.pause(*partitions)
        for partition in partitions:
            if await self._consumer.committed(partition) is None:
                (end,) = (await self._consumer.end_offsets([partition])).values()
                await self._consumer.commit({partition: end})
                self._consumer.seek(partition, end)
        self._consumer.resume(*partitions)

    # Requests

    async def _send_all(self, session: ClientSession, partition: TopicPartition, records: list[Any]) -> None:
        """Send the alerts of one partition in order, and commit each."""
        try:
            for record in records:
                outcome = "sent" if await self._send(session, partition, record) else "dropped"
                await self._consumer.commit({partition: record.offset + 1})
                self._metrics.webhook_alerts.labels(outcome).inc()
        finally:
            self._waiting_since.pop(partition, None)
            self._measure()
        # After a rebalance the partition may be another worker's.
        if partition in self._consumer.assignment():
            self._consumer.resume(partition)

    async def _send(self, session: ClientSession, partition: TopicPartition, record: Any) -> bool:
        """Send one alert until the address accepts it; return False if it was dropped."""
        begin, pause_s = self._now(), PAUSE_S
        content = body(record.value, self._settings.alert_webhook_form)
        self._waiting_since[partition] = begin
        while True:
            problem = await self._post(session, content)
            if not problem:
                return True
            waited = self._now() - begin
            self._measure()
            place = {"partition": partition.partition, "offset": record.offset, "error": problem}
            if waited + pause_s > self._settings.alert_webhook_retry_s:
                log.error("webhook_alert_dropped", extra=place)
                return False
            self._metrics.webhook_retries.inc()
            log.warning("webhook_alert_refused", extra={**place, "again_in_s": pause_s})
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def _post(self, session: ClientSession, content: bytes) -> str:
        """Send a request; return why it failed, empty if it was accepted."""
        headers = {"Content-Type": "application/json"}
        secret = self._settings.alert_webhook_secret.get_secret_value()
        if secret:
            headers["X-Groundswell-Signature"] = signature(secret, int(time.time()), content)
        try:
            async with session.post(
                self._settings.alert_webhook.get_secret_value(), data=content, headers=headers
            ) as answer:
                return "" if 200 <= answer.status < 300 else f"status {answer.status}"
        except (ClientError, TimeoutError, OSError) as error:
            return one_line(error) or type(error).__name__

    def _measure(self) -> None:
        oldest = min(self._waiting_since.values(), default=None)
        self._metrics.webhook_waiting.set(0 if oldest is None else self._now() - oldest)
