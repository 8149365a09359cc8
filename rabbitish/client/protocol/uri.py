"""AMQP URIs as RabbitMQ specifies them, with its query options: amqp(s)://user:password@host:port/vhost?options.

An empty virtual host is taken for "/", as Python's clients do. Options: heartbeat (seconds), connection_timeout
(milliseconds), channel_max, auth_mechanism (may come more than once), and for TLS cacertfile, certfile, keyfile,
password (of the key), verify, fail_if_no_peer_cert, server_name_indication. Any other is an error: a misspelt `verify`
must not go unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, unquote, urlsplit

from rabbitish.client.errors import URIError

MECHANISMS = ("PLAIN", "AMQPLAIN", "EXTERNAL")
_PORTS = {"amqp": 5672, "amqps": 5671}
_SHORT_MAX = 65_535


@dataclass(frozen=True)
class TlsOptions:
    """What a URI says about TLS. Files are in PEM; None: the system's authorities, and no certificate of our own."""

    cacertfile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    password: str | None = field(default=None, repr=False)
    verify: bool = True
    """Whether the broker's certificate and its name are checked."""
    server_name: str | None = None
    """The name to ask for and to check instead of the host's; empty: ask for none."""


@dataclass(frozen=True)
class Parameters:
    """Where a broker is, who to be there, and the limits to ask for: what `parse_uri` gives, and `connect` takes."""

    host: str = "localhost"
    port: int = 5672
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    tls: TlsOptions | None = None
    auth_mechanisms: tuple[str, ...] = ("PLAIN",)
    """In order of preference."""
    heartbeat: int | None = None
    """Seconds; None: what the broker suggests; 0: none."""
    connection_timeout: float = 10.0
    """Seconds for connecting and logging in."""
    channel_max: int = 0
    """The most channels to ask for; 0: what the broker suggests."""

    @property
    def address(self) -> str:
        """Host and port, as messages name them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_uri(text: str) -> Parameters:
    """What a URI says. URIError: it is none, or an option is unknown or cannot be had."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise URIError(f"this is no URI: {error}") from None
    if parts.scheme not in _PORTS or (not parts.netloc and parts.path) or parts.fragment:
        raise URIError("an AMQP URI is like amqp://user:password@host:port/vhost or amqps://…")
    if "/" in parts.path[1:]:
        raise URIError("the virtual host has a slash in it: write it as %2F")
    default = Parameters()
    parameters = Parameters(
        host=unquote(parts.hostname) if parts.hostname else default.host,
        port=_PORTS[parts.scheme] if port is None else port,
        user=default.user if parts.username is None else unquote(parts.username),
        password=default.password if parts.password is None else unquote(parts.password),
        vhost=unquote(parts.path[1:]) or default.vhost,
        tls=TlsOptions() if parts.scheme == "amqps" else None,
    )
    mechanisms: list[str] = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        parameters = _with_option(parameters, mechanisms, name, value)
    return replace(parameters, auth_mechanisms=tuple(mechanisms) or default.auth_mechanisms)


def _with_option(parameters: Parameters, mechanisms: list[str], name: str, value: str) -> Parameters:
    if name == "heartbeat":
        return replace(parameters, heartbeat=_number(name, value, _SHORT_MAX))
    if name == "channel_max":
        return replace(parameters, channel_max=_number(name, value, _SHORT_MAX))
    if name == "connection_timeout":
        return replace(parameters, connection_timeout=_number(name, value, 1 << 40) / 1000)
    if name == "auth_mechanism":
        mechanism = value.upper()
        if mechanism not in MECHANISMS:
            raise URIError(f"auth_mechanism is one of {', '.join(MECHANISMS)}, not {value!r}")
        mechanisms.append(mechanism)
        return parameters
    return replace(parameters, tls=_tls_option(parameters.tls, name, value))


def _tls_option(tls: TlsOptions | None, name: str, value: str) -> TlsOptions:
    if name in ("cacertfile", "certfile", "keyfile", "password"):
        changes: dict[str, str | bool] = {name: value}
    elif name == "verify":
        if value not in ("verify_peer", "verify_none"):
            raise URIError(f"verify is verify_peer or verify_none, not {value!r}")
        changes = {"verify": value == "verify_peer"}
    elif name == "server_name_indication":
        changes = {"server_name": "" if value == "disable" else value}
    elif name == "fail_if_no_peer_cert":
        changes = {}  # a server's option, which RabbitMQ's URIs may carry
    else:
        raise URIError(f"unknown option {name!r} in an AMQP URI")
    if tls is None:
        raise URIError(f"option {name!r} is for amqps:// URIs")
    return replace(tls, **changes)  # type: ignore[arg-type]


def _number(name: str, value: str, most: int) -> int:
    if not value.isascii() or not value.isdigit() or int(value) > most:
        raise URIError(f"option {name} is a whole number up to {most}, not {value!r}")
    return int(value)
