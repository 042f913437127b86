"""The settings of a Groundswell process: one frozen object that `Settings.load` makes of all sources.

Each field is `GROUNDSWELL_` plus its name in capitals; a variable that is set but empty counts
as not set. `Settings.load` turns what is wrong into one line that says what to do; the sources are in
streams/settings/sources.py.
"""

from __future__ import annotations

import ipaddress
import json
import re
import ssl
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streams.errors import SettingsError
from streams.settings import sources

PREFIX = "GROUNDSWELL_"
CLIENT_ID = "groundswell"
DAY_S = 86_400

HOW_TO_MAKE_ONE = "make one with: openssl rand -hex 16"

_NAME = re.compile(r"[A-Za-z0-9._-]*")
_TOKEN = re.compile(r"[!-~]{16,256}")


class Settings(BaseSettings):
    """What a process needs to know that is not in its input."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    broker: str = Field("localhost:9092", description="Kafka's addresses, `host:port`, separated by commas.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to Kafka."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "PLAIN", description="How to log in, with a `SASL_` protocol."
    )
    sasl_username: str = Field("", description="The user to log in as.")
    sasl_password: SecretStr = Field(SecretStr(""), description="That user's password.")
    sasl_oauth_token_url: str = Field(
        "", description="OAUTHBEARER: address of the token endpoint, which is asked by client credentials."
    )
    sasl_oauth_client_id: str = Field("", description="OAUTHBEARER: the client that the token endpoint knows.")
    sasl_oauth_client_secret: SecretStr = Field(SecretStr(""), description="That client's secret.")
    sasl_oauth_scope: str = Field("", description="OAUTHBEARER: the scope to ask the token endpoint for.")
    sasl_oauth_cafile: str = Field(
        "", description="File of the certificates to trust at the token endpoint; empty: the system's."
    )
    sasl_oauth_token_file: str = Field(
        "", description="OAUTHBEARER: file that holds the token, in place of a token endpoint; read for every login."
    )
    ssl_cafile: str = Field("", description="File of the certificates to trust; empty: the system's.")
    ssl_certfile: str = Field("", description="File of our own certificate, if Kafka asks for one.")
    ssl_keyfile: str = Field("", description="File of its key.")
    ssl_password: SecretStr = Field(SecretStr(""), description="The key's password.")
    ssl_check_hostname: bool = Field(True, description="Whether Kafka's certificate must name its host.")

    broker_wait_s: float = Field(
        20.0, ge=0, le=3_600, description="How long a worker that starts waits for Kafka, if nobody answers there."
    )

    group: str = Field("groundswell", min_length=1, description="The consumer group of the workers.")
    instance: str = Field(
        "", description="This worker's name in the group (static membership); empty: a member like any other."
    )
    session_timeout_s: float = Field(
        6.0,
        ge=1,
        le=1_800,
        description="After so many seconds without a sign of life the group gives a worker's partitions to others.",
    )
    prefix: str = Field(
        "", description="Put before the name of every topic and group, so that several can share one Kafka."
    )
    shards: int = Field(
        1, ge=1, le=64, description="Partitions of the mutations and halos topics: the parts of the graph."
    )

    partitions: int = Field(
        4,
        ge=1,
        le=10_000,
        description="Partitions of the input and output topics that are created; any number is taken.",
    )

    datadir: Path = Field(Path("groundswell-data"), description="Folder of the state; one worker each.")
    memory_mb: int = Field(
        256, ge=16, description="Megabytes that RocksDB may take for its cache and memtables, all shards together."
    )
    checkpoints: str = Field(
        "", description="Where checkpoints are kept, any address that fsspec knows (`file:///backup`); empty: nowhere."
    )
    checkpoint_every_s: float = Field(600.0, ge=1, description="Seconds between two checkpoints of a shard.")
    checkpoint_keep: int = Field(3, ge=1, description="Checkpoints of a shard that are kept.")
    model: str = Field("", description="Folder of a trained artifact; empty: the one in the package.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where the network is computed: `cpu`, `cuda`, `cuda:N`, or `auto`: the quicker, timed at start.",
    )

    web_host: str = Field("127.0.0.1", min_length=1, description="Address that the web port listens on.")
    web_port: int = Field(6066, ge=0, le=65_535, description="Web port: live page, API, metrics, health; 0: any free.")

    web_token: SecretStr = Field(
        SecretStr(""),
        description="What all pages but the health pages ask for, 16 to 256 visible ASCII characters; "
        "needed where `WEB_HOST` is no loopback address.",
    )

    retention_s: int = Field(
        30 * DAY_S, ge=0, description="Seconds after a content's creation in which a share of it counts; 0: always."
    )
    lateness_s: int = Field(
        7 * DAY_S, ge=0, description="Seconds that an event may be late beyond the retention before it is expired."
    )
    erase_within_s: float = Field(
        3_600.0,
        ge=0,
        description="Seconds after a `forget` until the worker's files hold the person no more; 0: at once.",
    )
    audit_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Part of a core's time in which random users are computed anew and compared; 0: off.",
    )
    dead_letter_limit: int = Field(
        1_000, ge=1, description="Bad messages in a row at which the worker stops instead of going on."
    )
    spread_rows: int = Field(
        16_384,
        ge=0,
        description="Nodes with more readers than an eighth of this are hubs; so many readers of hubs are brought up "
        "to date per micro-batch and layer. 0: all at once, however long it takes.",
    )
    tolerance: float = Field(
        0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="A change of a node's first layer is held back, until it adds up, if it moves none of its numbers "
        "(they are of the order of 0.3) by more than this: 0.01 saves two to three tenths of the second layer, and "
        "reach is off by up to 1 %; below 0.001 nothing is saved. 0: nothing is held back, scores are exact.",
    )
    target_ms: float = Field(
        0.0,
        ge=0,
        le=10_000,
        description="Milliseconds that the freshness of 99 % may have: what is left of them is waited for larger, "
        "cheaper micro-batches; 0: as quick as can be.",
    )
    publish_reach: float = Field(
        0.02, ge=0, allow_inf_nan=False, description="A score is published when its reach moved by more than this part."
    )
    publish_percentile: float = Field(
        0.5, ge=0, le=100, description="... or its percentile by more than this many points."
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="The least that is logged.")
    log_format: Literal["auto", "pretty", "json"] = Field(
        "auto", description="Form of the log; `auto`: pretty on a terminal, else JSON lines."
    )

    @field_validator("broker")
    @classmethod
    def _addresses(cls, value: str) -> str:
        for address in value.split(","):
            host, _, port = address.strip().rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) <= 65_535:
                message = f"{address.strip()!r} is not host:port"
                raise ValueError(message)
        return value

    @field_validator("sasl_oauth_token_url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^/@\s]+(/\S*)?", value):
            message = "an address that begins with https:// (or http://) and holds no password is needed"
            raise ValueError(message)
        return value

    @field_validator("prefix", "group", "instance")
    @classmethod
    def _kafka_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            message = "only letters, digits, '.', '_' and '-' are allowed in Kafka's names"
            raise ValueError(message)
        return value

    @field_validator("web_token")
    @classmethod
    def _hard_to_guess(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not _TOKEN.fullmatch(value.get_secret_value()):
            message = f"16 to 256 visible ASCII characters are needed; {HOW_TO_MAKE_ONE}"
            raise ValueError(message)
        return value

    @field_validator("checkpoints")
    @classmethod
    def _no_password(cls, value: str) -> str:
        if re.search(r"://[^/@]*:[^/@]*@", value):
            message = "a password does not belong into an address, which is shown; configure fsspec's plugin with it"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.security_protocol.startswith("SASL"):
            self._login()
        if self.ssl_keyfile and not self.ssl_certfile:
            message = f"{PREFIX}SSL_CERTFILE is needed with {PREFIX}SSL_KEYFILE"
            raise ValueError(message)
        if self.tolerance and self.audit_share:
            message = (
                f"{PREFIX}TOLERANCE and {PREFIX}AUDIT_SHARE exclude each other, as the audit would mend what is held "
                "back: set one of them to 0"
            )
            raise ValueError(message)
        if not self.web_is_local and not self.web_token.get_secret_value():
            message = f"{PREFIX}WEB_TOKEN is needed, as {PREFIX}WEB_HOST is no loopback address; {HOW_TO_MAKE_ONE}"
            raise ValueError(message)
        return self

    def _login(self) -> None:
        """Refuse a login that is not all there."""
        url, file = self.sasl_oauth_token_url, self.sasl_oauth_token_file
        message = ""
        if self.sasl_mechanism != "OAUTHBEARER":
            message = "" if self.sasl_username else f"{PREFIX}SASL_USERNAME is needed with {self.security_protocol}"
        elif bool(url) == bool(file):
            message = (
                f"one of {PREFIX}SASL_OAUTH_TOKEN_URL and {PREFIX}SASL_OAUTH_TOKEN_FILE is needed with OAUTHBEARER"
            )
        elif url and not (self.sasl_oauth_client_id and self.sasl_oauth_client_secret.get_secret_value()):
            message = (
                f"{PREFIX}SASL_OAUTH_CLIENT_ID and {PREFIX}SASL_OAUTH_CLIENT_SECRET are needed with "
                f"{PREFIX}SASL_OAUTH_TOKEN_URL"
            )
        if message:
            raise ValueError(message)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments only, so that settings which are handed over are complete; `load` reads the sources."""
        return (init_settings,)

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """The settings of all sources, with `overrides` (None: not given) on top.

        Raises:
            SettingsError: a value is wrong; the message names its variable.
        """
        examined = cls.examine(**overrides)
        if examined.problems:
            first, *others = examined.problems
            more = f" (and {len(others)} more: `groundswell config` shows all)" if others else ""
            raise SettingsError(first + more)
        return examined.settings

    @classmethod
    def examine(cls, **overrides: Any) -> sources.Examined[Self]:
        """The same with every problem in a list and a default in place of each wrong value: for what must show them."""
        return sources.examine(cls, {name: value for name, value in overrides.items() if value is not None})

    @property
    def consumer_group(self) -> str:
        """The group id as Kafka knows it: the prefix and the group."""
        return self.prefix + self.group

    @property
    def web_is_local(self) -> bool:
        """Whether only this machine can reach the web port."""
        try:
            return ipaddress.ip_address(self.web_host).is_loopback
        except ValueError:
            return self.web_host == "localhost"

    @property
    def servers(self) -> list[str]:
        """The addresses of `broker`, one each."""
        return [address.strip() for address in self.broker.split(",")]

    def kafka_kwargs(self) -> dict[str, Any]:
        """Arguments for any client of kafka-python that say where Kafka is and how to talk to it."""
        security = self._security()
        if security.get("sasl_mechanism") == "OAUTHBEARER":
            from streams.settings.oauth import KafkaTokens

            security["sasl_oauth_token_provider"] = KafkaTokens(self)
        return {"bootstrap_servers": self.servers, "client_id": CLIENT_ID, **security}

    def aiokafka_kwargs(self) -> dict[str, Any]:
        """The same for the clients of aiokafka."""
        security = self._security()
        if security.get("sasl_mechanism") == "OAUTHBEARER":
            from streams.settings.oauth import AiokafkaTokens

            security["sasl_oauth_token_provider"] = AiokafkaTokens(self)
        return {"bootstrap_servers": ",".join(self.servers), "client_id": CLIENT_ID, **security}

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context of the `SSL_` settings, or None if Kafka is spoken to in the clear."""
        if "SSL" not in self.security_protocol:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ssl_cafile or None)
            context.check_hostname = self.ssl_check_hostname
            if self.ssl_certfile:
                context.load_cert_chain(
                    self.ssl_certfile, self.ssl_keyfile or None, self.ssl_password.get_secret_value() or None
                )
        except (OSError, ssl.SSLError) as error:
            message = f"the certificates cannot be read ({error}); check {PREFIX}SSL_CAFILE, _CERTFILE and _KEYFILE"
            raise SettingsError(message) from error
        return context

    def _security(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {"security_protocol": self.security_protocol}
        context = self.ssl_context()
        if context is not None:
            arguments["ssl_context"] = context
        if self.security_protocol.startswith("SASL"):
            arguments["sasl_mechanism"] = self.sasl_mechanism
            if self.sasl_mechanism == "OAUTHBEARER":
                return arguments
            arguments["sasl_plain_username"] = self.sasl_username
            arguments["sasl_plain_password"] = self.sasl_password.get_secret_value()
        return arguments

    def handed_over(self) -> str:
        """All of them as JSON with the secrets in the clear: for a pipe to a process of our own, nothing else."""
        secrets = {name: value.get_secret_value() for name, value in self if isinstance(value, SecretStr)}
        return json.dumps({**self.model_dump(mode="json"), **secrets})

    def web_headers(self) -> dict[str, str]:
        """What our own requests to the web port carry."""
        token = self.web_token.get_secret_value()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def public(self) -> dict[str, Any]:
        """Every field as plain JSON values, secrets as `***` if set."""
        shown = self.model_dump(mode="json")
        for name, value in self:
            if isinstance(value, SecretStr):
                shown[name] = "***" if value.get_secret_value() else ""
        return shown
