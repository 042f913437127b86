"""An embedded Kafka with ACLs: one listener requires a login, two advertise an address that does not answer."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from pydantic import SecretStr

from streams.embedded.broker import HOST, EmbeddedKafka, _free_ports
from streams.errors import Right
from streams.settings.settings import Settings

PASSWORD = "open-sesame-if-allowed"
USERS = (
    "all",
    "noread",
    "nowrite",
    "nodescribe",
    "nocreate",
    "nogroup",
    "nothing",
    "reader",
    *(f"row{n}" for n in range(12)),
)
CLOSED = f"{HOST}:1"
NAMELESS = "broker.invalid:9092"
GRANTED_S = 0.3


class GuardedKafka(EmbeddedKafka):
    """The broker. Its own listener gives the test all rights; `login` requires one of USERS with PASSWORD."""

    def __init__(self) -> None:
        super().__init__(heap_mb=300)
        self.login = self.lost = self.nameless = ""
        self._admin: KafkaAdminClient | None = None

    def _configure(self) -> None:
        super()._configure()
        ports = {"LOGIN": _free_ports()[0], "LOST": _free_ports()[0], "NAMELESS": _free_ports()[0]}
        self.login, self.lost, self.nameless = (f"{HOST}:{port}" for port in ports.values())
        advertised = {"LOGIN": self.login, "LOST": CLOSED, "NAMELESS": NAMELESS}
        file = self.folder / "server.properties"
        lines = dict(line.split("=", 1) for line in file.read_text(encoding="utf-8").splitlines())
        lines["listeners"] += "".join(f",{name}://{HOST}:{port}" for name, port in ports.items())
        lines["advertised.listeners"] += "".join(f",{name}://{address}" for name, address in advertised.items())
        lines["listener.security.protocol.map"] = (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT,LOST:PLAINTEXT,NAMELESS:PLAINTEXT"
        )
        lines |= self.security()
        file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()), encoding="utf-8")

    def unreachable_listeners(self) -> dict[str, str]:
        """Listeners with an advertised address that does not answer, and that address."""
        return {self.lost: CLOSED, self.nameless: NAMELESS}

    def security(self) -> dict[str, str]:
        """The configuration of logins and rights."""
        logins = " ".join(f'user_{user}="{PASSWORD}"' for user in USERS)
        return {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.login.plain.sasl.jaas.config": (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {logins};"
            ),
        }

    def settings(self, settings: Settings, user: str) -> Settings:
        """The settings of a user."""
        update: dict[str, Any] = {
            "broker": self.login,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_username": user,
            "sasl_password": SecretStr(PASSWORD),
        }
        return settings.model_copy(update=update)

    def grant(self, user: str, rights: Iterable[Right]) -> None:
        """Grant rights to a user."""
        self.client.create_acls([_acl(user, right) for right in rights])
        time.sleep(GRANTED_S)

    def revoke(self, user: str, rights: Iterable[Right]) -> None:
        """Revoke rights of a user."""
        self.client.delete_acls([_acl(user, right) for right in rights])
        time.sleep(GRANTED_S)

    @property
    def client(self) -> KafkaAdminClient:
        """An admin client with all rights."""
        if self._admin is None:
            self._admin = KafkaAdminClient(bootstrap_servers=[self.address])
        return self._admin

    def stop(self) -> None:
        """Stop the broker."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None
        super().stop()


def _acl(user: str, right: Right) -> ACL:
    kind = ResourceType.GROUP if right.group else ResourceType.TOPIC
    operation = getattr(ACLOperation, right.operation.upper())
    return ACL(f"User:{user}", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, right.name))
