"""The settings of a Groundswell process: one frozen object that `Settings.load` builds from all sources.

The variable of a field is `GROUNDSWELL_` and the field's name in capitals; an empty variable counts as not set.
`Settings.load` reports an invalid value in one line with the variable and the fix. `streams/settings/sources.py` reads
the sources, `streams/settings/connection.py` builds the arguments of Kafka clients.
"""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streams.errors import SettingsError
from streams.settings import sources
from streams.settings.alert_topics import read_scopes
from streams.settings.tiers import DEFAULT as DEFAULT_TIERS
from streams.settings.tiers import Tiers

PREFIX = "GROUNDSWELL_"
DAY_S = 86_400

HOW_TO_MAKE_ONE = "make one with: openssl rand -hex 16"

_NAME = re.compile(r"[A-Za-z0-9._-]*")
_TOKEN = re.compile(r"[!-~]{16,256}")


# large class: every setting is one field
class Settings(BaseSettings):
    """Everything that configures a process; immutable."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    broker: str = Field("localhost:9092", description="Addresses of Kafka, `host:port`, separated by commas.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Protocol of the connection to Kafka."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "PLAIN", description="Login mechanism of a `SASL_` protocol."
    )
    sasl_username: str = Field("", description="User name of the login.")
    sasl_password: SecretStr = Field(SecretStr(""), description="Password of the login.")
    sasl_oauth_token_url: str = Field(
        "", description="OAUTHBEARER: URL of the token endpoint; tokens are requested with client credentials."
    )
    sasl_oauth_client_id: str = Field("", description="OAUTHBEARER: client id at the token endpoint.")
    sasl_oauth_client_secret: SecretStr = Field(SecretStr(""), description="OAUTHBEARER: secret of that client.")
    sasl_oauth_scope: str = Field("", description="OAUTHBEARER: scope of the requested token.")
    sasl_oauth_cafile: str = Field(
        "", description="File of trusted certificates for the token endpoint; empty: the system's."
    )
    sasl_oauth_token_file: str = Field(
        "", description="OAUTHBEARER: file with the token, instead of a token endpoint; read at every login."
    )
    ssl_cafile: str = Field("", description="File of trusted certificates for Kafka; empty: the system's.")
    ssl_certfile: str = Field("", description="File of the client certificate, if Kafka requires one.")
    ssl_keyfile: str = Field("", description="File of the client certificate's key.")
    ssl_password: SecretStr = Field(SecretStr(""), description="Password of that key.")
    ssl_check_hostname: bool = Field(True, description="Whether Kafka's certificate must match its host name.")

    broker_wait_s: float = Field(
        20.0, ge=0, le=3_600, description="Seconds that a starting worker waits for Kafka to answer."
    )

    group: str = Field("groundswell", min_length=1, description="Consumer group of the workers.")
    instance: str = Field(
        "", description="This worker's instance id in the group (static membership); empty: dynamic membership."
    )
    session_timeout_s: float = Field(
        6.0,
        ge=1,
        le=1_800,
        description="Seconds without a heartbeat after which Kafka reassigns a worker's partitions.",
    )
    prefix: str = Field(
        "", description="Prefix of every topic and group name, so that several installations can share one Kafka."
    )
    shards: int = Field(
        1, ge=1, le=64, description="Number of shards: partitions of the mutations topic and of the halos topic."
    )
    partitions: int = Field(
        4,
        ge=1,
        le=10_000,
        description="Partitions of new input and output topics; existing topics may have any number.",
    )

    datadir: Path = Field(Path("groundswell-data"), description="Folder of the state; each worker needs its own.")
    memory_mb: int = Field(256, ge=16, description="Megabytes of RocksDB's cache and memtables, all shards together.")
    checkpoints: str = Field(
        "", description="Address for checkpoints, in fsspec's syntax (`file:///backup`); empty: no checkpoints."
    )
    checkpoint_every_s: float = Field(600.0, ge=1, description="Seconds between checkpoints of a shard.")
    checkpoint_keep: int = Field(3, ge=1, description="Number of checkpoints that are kept of each shard.")
    model: str = Field("", description="Folder of a trained artifact; empty: the artifact in the package.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Device of the network: `cpu`, `cuda`, `cuda:N`, or `auto`: the faster one, measured at start.",
    )

    web_host: str = Field("127.0.0.1", min_length=1, description="Address on which the web server listens.")
    web_port: int = Field(6066, ge=0, le=65_535, description="Port of page, API, metrics and health; 0: any free port.")
    web_token: SecretStr = Field(
        SecretStr(""),
        description="Token that all pages except the health pages require, 16 to 256 visible ASCII characters; "
        "mandatory unless `WEB_HOST` is a loopback address.",
    )

    web_url: str = Field(
        "",
        description="Address of this worker's web port that other workers name for users of its shards; empty: "
        "`http://WEB_HOST:WEB_PORT`, with the machine's name if `WEB_HOST` is all interfaces.",
    )

    analyst_url: str = Field(
        "", description="Address of the analyst's page, to which the worker's page links; empty: no link."
    )
    analyst_port: int = Field(
        6067, ge=0, le=65_535, description="Port of the analyst's API and health; 0: any free port."
    )
    analyst_interval_s: float = Field(
        1.0,
        ge=0.01,
        le=3_600,
        description="Seconds between two passes of the analyst; longer when a pass takes more than a fifth of it.",
    )
    analyst_cascade_sets: int = Field(
        0,
        ge=0,
        le=1 << 22,
        description="Reverse-reachable sets that the analyst keeps for the list `ic` and `seeds --model ic`, with "
        "probabilities 1 / (users followed) in powers of two; 0: none, sets are sampled for each question.",
    )
    analyst_communities: Literal["follows", "interactions", "memberships"] = Field(
        "follows",
        description="The communities and bridges that the analyst publishes: of follows, of who shared whom, or those "
        "that members joined (of several the smallest).",
    )
    analyst_next_model: str = Field(
        "",
        description="Folder that `groundswell train-next` wrote, for `POST /api/v1/predict/share`; empty: no answers.",
    )
    analyst_memory_mb: int = Field(
        8_192,
        ge=16,
        description="Maximum megabytes of the analyst's graph; it stops with the numbers when it needs more.",
    )

    retention_s: int = Field(
        30 * DAY_S, ge=0, description="Seconds after a content's creation in which its shares count; 0: no limit."
    )
    lateness_s: int = Field(
        7 * DAY_S, ge=0, description="Seconds beyond the retention by which an event may be late before it expires."
    )
    watermark_idle_s: float = Field(
        10.0,
        ge=0,
        description="Seconds without a message after which an input partition that is read to its end no longer holds "
        "back alerts.",
    )
    watermark_delay_s: float = Field(
        0.0,
        ge=0,
        description="Seconds of event time by which alerts wait for events that are not in order of time in their "
        "partition; later ones count in scores, and only in later alerts.",
    )
    alert_window_s: int = Field(
        0, ge=0, description="Seconds of the alert window; 0: the horizon of the artifact. Equal on all workers."
    )
    alert_steps: int = Field(
        12,
        ge=1,
        le=48,
        description="Boundaries per alert window at which alerts are judged; must divide 48. Equal on all workers.",
    )
    alert_budget: int = Field(
        3, ge=0, le=1_000, description="Alerts per boundary, in the whole graph. Equal on all workers."
    )
    alert_floor: int = Field(
        40,
        ge=0,
        description="Decayed shares of an alert are at least the shares that lead into the top twentieth of the window "
        "divided by this; 0: no minimum. Equal on all workers.",
    )
    alert_new_sharers: int = Field(
        3,
        ge=1,
        description="Least number of users who share an author for the first time within the alert window. Equal on "
        "all workers.",
    )
    alert_topics: str = Field(
        "",
        description="What alerts are about, separated by commas: topics, `community:NAME`, or `*` for any content. "
        "`NAME=N` has a budget of N alerts per boundary of its own, the others share `ALERT_BUDGET`; names are "
        "percent-encoded. Empty: any content. Equal on all workers.",
    )
    alert_webhook: SecretStr = Field(
        SecretStr(""),
        description="URL to which every alert is sent as a POST request; a secret, because it may hold a token. Empty: "
        "none.",
    )
    alert_webhook_form: Literal["json", "slack"] = Field(
        "json", description="Body of these requests: the alert with a `text`, or Slack's form with the text only."
    )
    alert_webhook_secret: SecretStr = Field(
        SecretStr(""),
        description="Secret of the HMAC-SHA256 in `X-Groundswell-Signature`; empty: requests are not signed.",
    )
    alert_webhook_retry_s: float = Field(
        3_600.0, ge=0, description="Seconds for which an alert that the address refuses is sent again."
    )
    erase_within_s: float = Field(
        3_600.0,
        ge=0,
        description="Seconds after a `forget` until the worker's files hold the person no more; 0: at once.",
    )
    audit_share: float = Field(
        0.0, ge=0, le=1, description="Fraction of one CPU core spent auditing random users; 0: off."
    )
    dead_letter_limit: int = Field(
        1_000, ge=1, description="Consecutive invalid messages after which the worker stops."
    )
    spread_rows: int = Field(
        16_384,
        ge=0,
        description="Maximum readers of hubs recomputed per micro-batch and layer; the others wait. Hubs are nodes "
        "with more readers than an eighth of this. 0: no limit, however long a micro-batch takes.",
    )
    tolerance: float = Field(
        0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Changes of a node's first-layer output (values around 0.3) up to this size are held back until "
        "they add up to more: 0.01 saves 20 to 30 % of the second layer's work and changes reach by up to 1 %; below "
        "0.001 nothing is saved. 0: nothing is held back, scores are exact.",
    )
    target_ms: float = Field(
        0.0,
        ge=0,
        le=10_000,
        description="Target of the 99th percentile of freshness, in milliseconds; a worker that is faster waits for "
        "larger, cheaper micro-batches. 0: no waiting.",
    )
    publish_reach: float = Field(
        0.02, ge=0, allow_inf_nan=False, description="Relative change of reach above which a score is published."
    )
    publish_percentile: float = Field(
        0.5, ge=0, le=100, description="Change of the percentile, in points, above which a score is published."
    )

    tiers: str = Field(
        DEFAULT_TIERS,
        description="Tiers: names with the octave of followers at which each begins; octave k begins at 2^k.",
    )
    live_posts: int = Field(
        1_000,
        ge=0,
        le=100_000,
        description="Newest closed posts that the live figures cover: predictions against what posts got; 0: off.",
    )

    calibrate: bool = Field(
        True, description="Whether reach in persons is calibrated to the graph by its own closed posts."
    )

    train_every_s: float = Field(
        86_400.0, ge=1, description="Event time in seconds between two trainings of the trainer."
    )
    train_posts: int = Field(
        500, ge=60, le=100_000, description="Newest closed posts that judge a trained artifact; at most a third of all."
    )
    train_events: int = Field(
        1_000_000, ge=1_000, description="Newest events that the trainer keeps in memory and learns from."
    )
    train_behind: float = Field(
        0.05,
        ge=0,
        le=2,
        description="Live Spearman below that of the past mean at which the trainer trains before `TRAIN_EVERY_S`.",
    )
    train_threads: int = Field(1, ge=1, le=64, description="Threads of a training.")
    train_nice: int = Field(10, ge=0, le=19, description="Niceness of the trainer's process.")
    train_memory_mb: int = Field(
        0, ge=0, description="Maximum megabytes of the trainer's address space; 0: no limit of its own."
    )

    trace_endpoint: str = Field(
        "",
        description="OTLP: URL of the collector for traces over HTTP (`http://collector:4318/v1/traces`); empty: none. "
        "Needs the extra `otel`.",
    )
    trace_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="OTLP: share of micro-batches without a traced input message that are traced; those with one "
        "follow the `traceparent` of the message.",
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")
    log_format: Literal["auto", "pretty", "json"] = Field(
        "auto", description="Format of the log; `auto`: pretty on a terminal, else JSON lines."
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

    @field_validator("tiers")
    @classmethod
    def _tiers(cls, value: str) -> str:
        try:
            Tiers(value)
        except SettingsError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("sasl_oauth_token_url", "analyst_url", "trace_endpoint", "web_url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^/@\s]+(/\S*)?", value):
            message = "must be a URL that begins with https:// (or http://) and holds no password"
            raise ValueError(message)
        return value

    @field_validator("alert_webhook")
    @classmethod
    def _webhook_address(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value():
            cls._web_address(value.get_secret_value())
        return value

    @field_validator("prefix", "group", "instance")
    @classmethod
    def _kafka_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            message = "must hold only letters, digits, '.', '_' and '-'"
            raise ValueError(message)
        return value

    @field_validator("alert_topics")
    @classmethod
    def _scopes(cls, value: str) -> str:
        read_scopes(value, 0)
        return value

    @field_validator("alert_steps")
    @classmethod
    def _whole_epochs(cls, value: int) -> int:
        if 48 % value:
            message = "must divide 48: 1, 2, 3, 4, 6, 8, 12, 16, 24 or 48"
            raise ValueError(message)
        return value

    @field_validator("web_token")
    @classmethod
    def _hard_to_guess(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not _TOKEN.fullmatch(value.get_secret_value()):
            message = f"must be 16 to 256 visible ASCII characters; {HOW_TO_MAKE_ONE}"
            raise ValueError(message)
        return value

    @field_validator("checkpoints")
    @classmethod
    def _no_password(cls, value: str) -> str:
        if re.search(r"://[^/@]*:[^/@]*@", value):
            message = "must hold no password, because the address is shown; configure the password in fsspec's plugin"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _together(self) -> Self:
        if problem := _conflict(self):
            raise ValueError(problem)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Accept arguments only, so that settings passed to another process are complete; `load` reads the sources."""
        return (init_settings,)

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the settings from all sources.

        Args:
            overrides: values that take precedence over every source; None counts as not given.

        Raises:
            SettingsError: a value is invalid; the message names its variable.
        """
        examined = cls.examine(**overrides)
        if examined.problems:
            first, *others = examined.problems
            more = f" (and {len(others)} more: `groundswell config` shows all)" if others else ""
            raise SettingsError(first + more)
        return examined.settings

    @classmethod
    def examine(cls, **overrides: Any) -> sources.Examined[Self]:
        """Read the settings as `load` does, with a list of all problems and a default for each invalid value."""
        return sources.examine(cls, {name: value for name, value in overrides.items() if value is not None})

    @property
    def consumer_group(self) -> str:
        """The group id in Kafka: the prefix and the group."""
        return self.prefix + self.group

    @property
    def analyst_group(self) -> str:
        """The group id of the analyst in Kafka."""
        return f"{self.consumer_group}.analyst"

    @property
    def web_is_local(self) -> bool:
        """Whether only this machine can reach the web port."""
        try:
            return ipaddress.ip_address(self.web_host).is_loopback
        except ValueError:
            return self.web_host == "localhost"

    @property
    def servers(self) -> list[str]:
        """The addresses of `broker` as a list."""
        return [address.strip() for address in self.broker.split(",")]

    def handed_over(self) -> str:
        """Return all settings as JSON with the secrets in clear text; only for a pipe to a child process."""
        secrets = {name: value.get_secret_value() for name, value in self if isinstance(value, SecretStr)}
        return json.dumps({**self.model_dump(mode="json"), **secrets})

    def web_headers(self) -> dict[str, str]:
        """Return the headers that authenticate a request to the worker's own web port."""
        token = self.web_token.get_secret_value()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def public(self) -> dict[str, Any]:
        """Return every field as a plain JSON value; secrets that are set become `***`."""
        shown = self.model_dump(mode="json")
        for name, value in self:
            if isinstance(value, SecretStr):
                shown[name] = "***" if value.get_secret_value() else ""
        return shown


def _conflict(settings: Settings) -> str:
    """Return what is missing or contradictory between valid fields; empty if nothing is."""
    if settings.security_protocol.startswith("SASL") and (problem := _incomplete_login(settings)):
        return problem
    if settings.ssl_keyfile and not settings.ssl_certfile:
        return f"{PREFIX}SSL_CERTFILE is needed with {PREFIX}SSL_KEYFILE"
    if settings.tolerance and settings.audit_share:
        return (
            f"{PREFIX}TOLERANCE and {PREFIX}AUDIT_SHARE exclude each other, because the audit would repair values that "
            "are held back on purpose: set one of them to 0"
        )
    if not settings.web_is_local and not settings.web_token.get_secret_value():
        return f"{PREFIX}WEB_TOKEN is needed, because {PREFIX}WEB_HOST is no loopback address; {HOW_TO_MAKE_ONE}"
    return ""


def _incomplete_login(settings: Settings) -> str:
    """Return what is missing for a login; empty if nothing is."""
    url, file = settings.sasl_oauth_token_url, settings.sasl_oauth_token_file
    if settings.sasl_mechanism != "OAUTHBEARER":
        return "" if settings.sasl_username else f"{PREFIX}SASL_USERNAME is needed with {settings.security_protocol}"
    if bool(url) == bool(file):
        return f"one of {PREFIX}SASL_OAUTH_TOKEN_URL and {PREFIX}SASL_OAUTH_TOKEN_FILE is needed with OAUTHBEARER"
    if url and not (settings.sasl_oauth_client_id and settings.sasl_oauth_client_secret.get_secret_value()):
        return (
            f"{PREFIX}SASL_OAUTH_CLIENT_ID and {PREFIX}SASL_OAUTH_CLIENT_SECRET are needed with "
            f"{PREFIX}SASL_OAUTH_TOKEN_URL"
        )
    return ""
