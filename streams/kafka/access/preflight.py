"""The first connection to Kafka, made before any client is created, to report connection errors precisely.

A client that cannot connect retries until its timeout and then reports only the timeout. So each configured address is
tried once, with the configured security, until one accepts; the error of the last one becomes a line that names the
setting to check. No line contains a secret. The addresses that Kafka advertises are tried too
(`streams/kafka/access/advertised_listeners.py`), as every client uses those afterwards.
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
"""OpenSSL's verify codes for a valid certificate of another host."""
_LOGGERS = ("aiokafka.conn", "asyncio")
RETRY_S, RETRY_UNTIL_S = 1.0, 10.0
"""Retry interval and deadline when the broker closes the connection, as one does that is being restarted."""
CLOSE_S = 2.0
"""Maximum wait for the other side when a connection is closed."""


def check_connection(settings: Settings, timeout_s: float) -> None:
    """Connect to one of the configured addresses and log in.

    Raises:
        BrokerError: no address accepted; the message has the cause and the setting to check.
        SettingsError: the certificates cannot be read.
    """
    ssl_context(settings)
    # On a thread, because the caller may be running inside an event loop.
    with ThreadPoolExecutor(1) as thread:
        problem = thread.submit(asyncio.run, _try_until_deadline(settings, timeout_s)).result()
    if isinstance(problem, Unreachable):
        raise problem
    if problem is not None:
        raise BrokerError(explain(settings, problem)) from problem


async def _try_until_deadline(settings: Settings, timeout_s: float) -> BaseException | None:
    """Return the error of the last address; None if one accepted."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        problem = await _try_each(settings, timeout_s)
        end = monotonic() + RETRY_UNTIL_S
        while isinstance(problem, errors.KafkaConnectionError | ConnectionResetError) and monotonic() < end:
            await asyncio.sleep(RETRY_S)
            problem = await _try_each(settings, timeout_s)
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    return problem


async def _try_each(settings: Settings, timeout_s: float) -> BaseException | None:
    problem: BaseException | None = None
    for server in settings.servers:
        try:
            async with asyncio.timeout(timeout_s):
                await _try(settings, server, timeout_s)
        except (errors.KafkaError, OSError, TimeoutError, Unreachable) as error:
            problem = error
        else:
            return None
    return problem


async def _try(settings: Settings, server: str, timeout_s: float) -> None:
    host, _, port = server.rpartition(":")
    security = aiokafka_arguments(settings)
    del security["bootstrap_servers"]
    connection = AIOKafkaConnection(host.strip("[]"), int(port), request_timeout_ms=int(timeout_s * 1_000), **security)
    try:
        await connection.connect()
        brokers = (await connection.send(MetadataRequest([]))).brokers
    except OSError:
        raise  # it was never open, and a close would wait for that
    except errors.KafkaError:
        await _close(connection)
        raise
    await _close(connection)
    errors_by_address = await advertised_listeners.unreachable(
        {(broker[1], broker[2]) for broker in brokers}, (host.strip("[]"), int(port))
    )
    if errors_by_address and len(errors_by_address) == len({broker[1:3] for broker in brokers}):
        raise Unreachable(server, errors_by_address)


async def _close(connection: Any) -> None:
    """Close a connection and wait for it: a TLS connection that is open when the loop ends is never closed."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await connection.close()


def explain(settings: Settings, problem: BaseException) -> str:
    """Return the error line: what happened, and which setting to check."""
    servers, protocol = settings.broker, settings.security_protocol
    cause = problem
    while cause.__cause__ is not None and not isinstance(cause, ssl.SSLError | TimeoutError):
        cause = cause.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in {_HOSTNAME, _ADDRESS}:
            return (
                f"the certificate of Kafka at {servers} is for another host: set {PREFIX}BROKER to the "
                f"name in the certificate ({cause.verify_message})"
            )
        return (
            f"the certificate of Kafka at {servers} is not trusted ({cause.verify_message}): "
            f"set {PREFIX}SSL_CAFILE to the certificate file of its issuer"
        )
    if isinstance(cause, ssl.SSLError) and "CERTIFICATE" in (cause.reason or ""):
        return (
            f"Kafka at {servers} does not accept the certificate of this client ({cause.reason}): "
            f"check {PREFIX}SSL_CERTFILE and _KEYFILE"
        )
    if isinstance(problem, TokenError):
        return str(problem)
    refused = isinstance(problem, errors.AuthenticationFailedError | errors.SaslAuthenticationFailed)
    if refused and settings.sasl_mechanism == MECHANISM:
        return (
            f"Kafka at {servers} refused the token of {tokens(settings).user} ({one_line(problem)}): check the "
            f"{PREFIX}SASL_OAUTH_ settings, and the issuer, audience and scope that Kafka expects"
        )
    if refused:
        return f"Kafka at {servers} refused the login: check {PREFIX}SASL_USERNAME and {PREFIX}SASL_PASSWORD"
    if isinstance(problem, errors.UnsupportedSaslMechanismError):
        return (
            f"Kafka at {servers} does not accept {settings.sasl_mechanism}: "
            f"set {PREFIX}SASL_MECHANISM to a mechanism that it accepts"
        )
    if isinstance(problem, errors.KafkaError | TimeoutError | ssl.SSLError | ConnectionResetError):
        return (
            f"Kafka at {servers} does not answer {protocol} ({one_line(cause)}): "
            f"check {PREFIX}SECURITY_PROTOCOL and the port in {PREFIX}BROKER"
        )
    return f"no Kafka at {servers} ({one_line(problem)}); start it or set {PREFIX}BROKER"
