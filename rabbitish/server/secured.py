"""What is known of a connection with TLS besides its bytes: version, cipher, and who its certificate says the peer is.

It is found where the handshake was. Where that is another node of the cluster it travels inside the Relay frame, behind
the proof of the cluster's secret, and is believed.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rabbitish.config import Settings
from rabbitish.server.log import Log
from rabbitish.server.peer_name import distinguished_name, peer_name
from rabbitish.server.tls import TlsSocket


class Secured(NamedTuple):
    """A connection with TLS. What is of a certificate is empty where none was asked for, or shown."""

    version: str
    """ "TLSv1.3", for example."""
    cipher: str
    """By OpenSSL's name."""
    login: str | None = None
    """Session's peer_certificate_name."""
    subject: str = ""
    issuer: str = ""
    validity: str = ""

    @classmethod
    def of(cls, tls: TlsSocket, settings: Settings, log: Log) -> Secured:
        """Of a connection whose handshake is done; the name is what the settings say."""
        login = "" if settings.ssl_cert_login else None
        about = ("", "", "")
        try:
            certificate = tls.certificate or {}
            if login is not None:
                login = peer_name(certificate, settings)
            about = distinguished_name(certificate), distinguished_name(certificate, "issuer"), _validity(certificate)
        except (ssl.SSLError, ValueError) as error:  # text that is none
            log.warning("no name can be read from the client's certificate", error=error)
        return cls(tls.version, tls.cipher, login, *about)

    def encode(self) -> bytes:
        """As bytes, for `decode_secured`."""
        return json.dumps(self._asdict()).encode()


def _validity(certificate: Mapping[str, Any]) -> str:
    """RabbitMQ's "2026-01-01T00:00:00Z - 2027-01-01T00:00:00Z"."""
    if "notBefore" not in certificate:
        return ""
    ends = (ssl.cert_time_to_seconds(certificate[key]) for key in ("notBefore", "notAfter"))
    return " - ".join(datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for end in ends)


def decode_secured(raw: bytes) -> Secured | None:
    """What was encoded; None of nothing. ValueError: it is something else."""
    if not raw:
        return None
    found = json.loads(raw)
    if not isinstance(found, dict) or found.keys() != {*Secured._fields}:
        raise ValueError("it does not say how the client is secured")
    if not all(isinstance(value, str) or (key == "login" and value is None) for key, value in found.items()):
        raise ValueError("it does not say in words how the client is secured")
    return Secured(**found)
