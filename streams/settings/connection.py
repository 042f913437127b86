"""Arguments of Kafka clients, built from the settings: addresses, TLS and login."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from streams.errors import SettingsError

if TYPE_CHECKING:
    from streams.settings.settings import Settings

CLIENT_ID = "groundswell"
_OAUTH = "OAUTHBEARER"


def kafka_arguments(settings: Settings) -> dict[str, Any]:
    """Return the arguments that every client of kafka-python needs to connect.

    Raises:
        SettingsError: the certificates cannot be read.
    """
    security = _security(settings)
    if security.get("sasl_mechanism") == _OAUTH:
        from streams.settings.oauth import KafkaTokens

        security["sasl_oauth_token_provider"] = KafkaTokens(settings)
    return {"bootstrap_servers": settings.servers, "client_id": CLIENT_ID, **security}


def aiokafka_arguments(settings: Settings) -> dict[str, Any]:
    """Return the arguments that every client of aiokafka needs to connect.

    Raises:
        SettingsError: the certificates cannot be read.
    """
    security = _security(settings)
    if security.get("sasl_mechanism") == _OAUTH:
        from streams.settings.oauth import AiokafkaTokens

        security["sasl_oauth_token_provider"] = AiokafkaTokens(settings)
    return {"bootstrap_servers": ",".join(settings.servers), "client_id": CLIENT_ID, **security}


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context of the `SSL_` settings; None if the connection is not encrypted.

    Raises:
        SettingsError: the certificates cannot be read.
    """
    if "SSL" not in settings.security_protocol:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile or None)
        context.check_hostname = settings.ssl_check_hostname
        if settings.ssl_certfile:
            context.load_cert_chain(
                settings.ssl_certfile, settings.ssl_keyfile or None, settings.ssl_password.get_secret_value() or None
            )
    except (OSError, ssl.SSLError) as error:
        message = (
            f"the certificates cannot be read ({error}); check GROUNDSWELL_SSL_CAFILE, GROUNDSWELL_SSL_CERTFILE and "
            "GROUNDSWELL_SSL_KEYFILE"
        )
        raise SettingsError(message) from error
    return context


def _security(settings: Settings) -> dict[str, Any]:
    """Return the arguments for TLS and login that both clients share."""
    arguments: dict[str, Any] = {"security_protocol": settings.security_protocol}
    context = ssl_context(settings)
    if context is not None:
        arguments["ssl_context"] = context
    if settings.security_protocol.startswith("SASL"):
        arguments["sasl_mechanism"] = settings.sasl_mechanism
        if settings.sasl_mechanism != _OAUTH:
            arguments["sasl_plain_username"] = settings.sasl_username
            arguments["sasl_plain_password"] = settings.sasl_password.get_secret_value()
    return arguments
