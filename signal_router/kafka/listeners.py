"""Extra listeners of the embedded broker, beside the plain one: TLS and SASL, as a real cluster has them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener on 127.0.0.1; `settings` are broker settings without their `listener.name.<name>.` prefix."""

    name: str
    protocol: Protocol
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = 0

    def properties(self) -> dict[str, str]:
        """The settings as the broker's file spells them."""
        return {f"listener.name.{self.name.lower()}.{key}": value for key, value in self.settings.items()}


def sasl_plain(users: Mapping[str, str], *, name: str = "SASL") -> Listener:
    """SASL/PLAIN without TLS, for the given users and passwords."""
    accounts = " ".join(f'user_{user}="{password}"' for user, password in users.items())
    jaas = f"org.apache.kafka.common.security.plain.PlainLoginModule required {accounts};"
    return Listener(name, "SASL_PLAINTEXT", {"sasl.enabled.mechanisms": "PLAIN", "plain.sasl.jaas.config": jaas})


def sasl_scram(*, name: str = "SCRAM", mechanism: str = "SCRAM-SHA-256") -> Listener:
    """SASL/SCRAM without TLS; the users are made through the admin client, on the plain listener."""
    jaas = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    settings = {"sasl.enabled.mechanisms": mechanism, f"{mechanism.lower()}.sasl.jaas.config": jaas}
    return Listener(name, "SASL_PLAINTEXT", settings)


def tls(keystore_pem: Path, *, truststore_pem: Path | None = None, name: str = "TLS") -> Listener:
    """TLS with the given PEM file (private key, then certificates); with a trust store clients must show theirs."""
    settings = {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(keystore_pem)}
    if truststore_pem is not None:
        settings |= {
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(truststore_pem),
            "ssl.client.auth": "required",
        }
    return Listener(name, "SSL", settings)
