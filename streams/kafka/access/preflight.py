"""The first connection to Kafka: made once before any client is, because this one says what is wrong.

A client that is turned away tries again until its time is up and then says only that it had none. So
each address is asked once, with the security that is set: the first that lets us in will do, and what
the last one said becomes a line that names the setting to mend. No secret is in any of them. The addresses
that Kafka advertises are tried too (`streams/kafka/access/advertised_listeners.py`): every client goes on with those.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Any

from aiokafka import errors
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.metadata import MetadataRequest

from streams.errors import BrokerError, one_line
from streams.kafka.access import advertised_listeners
from streams.kafka.access.advertised_listeners import Unreachable
from streams.settings.connection import aiokafka_arguments, ssl_context
from streams.settings.oauth import MECHANISM, TokenError, tokens
from streams.settings.settings import PREFIX, Settings

_HOSTNAME, _ADDRESS = 62, 64
"""OpenSSL's verify codes for a certificate that is good, but another host's."""
_LOGGERS = ("aiokafka.conn", "asyncio")
AGAIN_S, PATIENCE_S = 1.0, 10.0
"""Who hangs up is asked again, and for so long: a broker that just ended, and is started again, does that too."""

CLOSED_S = 2.0


def knock(settings: Settings, timeout_s: float) -> None:
    """Connect to one of the addresses and log in.

    Raises:
        BrokerError: none of them let us in; the message says why and which setting to look at.
        SettingsError: the certificates cannot be read.
    """
    ssl_context(settings)
    # On a thread of its own, because whoever asks may have an event loop of its own.
    with ThreadPoolExecutor(1) as thread:
        problem = thread.submit(asyncio.run, _ask_all(settings, timeout_s)).result()
    if isinstance(problem, Unreachable):
        raise problem
    if problem is not None:
        raise BrokerError(explain(settings, problem)) from problem


async def _ask_all(settings: Settings, timeout_s: float) -> BaseException | None:
    """What the last address said; None if one let us in."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        problem = await _ask_each(settings, timeout_s)
        end = monotonic() + PATIENCE_S
        while isinstance(problem, errors.KafkaConnectionError | ConnectionResetError) and monotonic() < end:
            await asyncio.sleep(AGAIN_S)
            problem = await _ask_each(settings, timeout_s)
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    return problem


async def _ask_each(settings: Settings, timeout_s: float) -> BaseException | None:
    problem: BaseException | None = None
    for server in settings.servers:
        try:
            async with asyncio.timeout(timeout_s):
                await _ask(settings, server, timeout_s)
        except (errors.KafkaError, OSError, TimeoutError, Unreachable) as error:
            problem = error
        else:
            return None
    return problem


async def _ask(settings: Settings, server: str, timeout_s: float) -> None:
    host, _, port = server.rpartition(":")
    how = aiokafka_arguments(settings)
    del how["bootstrap_servers"]
    connection = AIOKafkaConnection(host.strip("[]"), int(port), request_timeout_ms=int(timeout_s * 1_000), **how)
    try:
        await connection.connect()
        brokers = (await connection.send(MetadataRequest([]))).brokers
    finally:
        await _closed(connection)
    lost = await advertised_listeners.unreachable(
        {(broker[1], broker[2]) for broker in brokers}, (host.strip("[]"), int(port))
    )
    if lost and len(lost) == len({broker[1:3] for broker in brokers}):
        raise Unreachable(server, lost)


async def _closed(connection: Any) -> None:
    """Over TLS the other side has its part in a close; what is still open when the loop ends is never closed."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSED_S):
            await connection.close()


def explain(settings: Settings, problem: BaseException) -> str:
    """The line for a person: what happened, and which setting to look at."""
    where, protocol = settings.broker, settings.security_protocol
    cause = problem
    while cause.__cause__ is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in {_HOSTNAME, _ADDRESS}:
            return (
                f"the certificate of Kafka at {where} names another host: name it in {PREFIX}BROKER as its certificate "
                f"does ({cause.verify_message})"
            )
        return (
            f"the certificate of Kafka at {where} is not to be trusted ({cause.verify_message}): "
            f"set {PREFIX}SSL_CAFILE to the file of who signed it"
        )
    if isinstance(cause, ssl.SSLError) and "CERTIFICATE" in (cause.reason or ""):
        return (
            f"Kafka at {where} does not take our certificate ({cause.reason}): check {PREFIX}SSL_CERTFILE and _KEYFILE"
        )
    if isinstance(problem, TokenError):
        return str(problem)
    refused = isinstance(problem, errors.AuthenticationFailedError | errors.SaslAuthenticationFailed)
    if refused and settings.sasl_mechanism == MECHANISM:
        return (
            f"Kafka at {where} refused the token of {tokens(settings).user} ({one_line(problem)}): check the "
            f"{PREFIX}SASL_OAUTH_ settings, and the issuer, audience and scope that Kafka expects"
        )
    if refused:
        return f"Kafka at {where} refused the login: check {PREFIX}SASL_USERNAME and {PREFIX}SASL_PASSWORD"
    if isinstance(problem, errors.UnsupportedSaslMechanismError):
        return f"Kafka at {where} does not take {settings.sasl_mechanism}: set {PREFIX}SASL_MECHANISM to what it takes"
    if isinstance(problem, errors.KafkaError | TimeoutError | ssl.SSLError | ConnectionResetError):
        return (
            f"Kafka at {where} does not answer {protocol} ({one_line(cause)}): "
            f"check {PREFIX}SECURITY_PROTOCOL and the port in {PREFIX}BROKER"
        )
    return f"no Kafka at {where} ({one_line(problem)}); start it or set {PREFIX}BROKER"
