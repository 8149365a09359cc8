"""From the protocol header to connection.open-ok: who the peer is, which limits hold, which virtual host it works in.

A table of (state, method) -> handler; what is not in it is an unexpected method. What a peer gets wrong here is
answered as RabbitMQ does: some refusals with a connection.close, the others with silence and, after a while, a closed
socket, so that guessing is slow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rabbitish import __version__
from rabbitish.core.access import User
from rabbitish.errors import AMQPError, ConnectionFailure, ReplyCode
from rabbitish.values import Table
from rabbitish.wire import methods
from rabbitish.wire.method import Method
from rabbitish.wire.table import decode_table_body

if TYPE_CHECKING:
    from rabbitish.session.connection import Session

MECHANISMS = ("AMQPLAIN", "PLAIN")
BY_CERTIFICATE = "EXTERNAL"

CAPABILITIES: Table = dict.fromkeys(
    (
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ),
    True,
)


class Silence(Exception):
    """The peer is not worth an answer: say nothing and hang up after a while."""


def start(session: Session) -> None:
    """Send connection.start."""
    settings = session.settings
    properties: Table = {
        "capabilities": CAPABILITIES,
        "cluster_name": settings.cluster_name,
        "copyright": "The rabbitish developers",
        "information": "rabbitish, a message broker that speaks RabbitMQ's AMQP 0-9-1",
        "platform": "Python",
        "product": settings.product,
        "version": settings.product_version,
        "rabbitish_version": __version__,
    }
    session.send(
        methods.ConnectionStart(
            version_major=0,
            version_minor=9,
            server_properties=properties,
            mechanisms=" ".join(_mechanisms(session)).encode(),
            locales=b"en_US",
        )
    )


def _mechanisms(session: Session) -> tuple[str, ...]:
    """What this peer may log in by. As RabbitMQ, EXTERNAL even without a certificate: the refusal is easier to read."""
    return MECHANISMS if session.peer_certificate_name is None else (*MECHANISMS, BY_CERTIFICATE)


def _start_ok(session: Session, method: methods.ConnectionStartOk) -> None:
    session.client_properties = method.client_properties
    capabilities = method.client_properties.get("capabilities")
    session.capabilities = capabilities if isinstance(capabilities, dict) else {}
    if method.mechanism not in _mechanisms(session):
        session.log.warning("unknown authentication mechanism", mechanism=method.mechanism)
        raise Silence
    if method.mechanism == BY_CERTIFICATE:  # whatever the response says
        name = session.peer_certificate_name or ""
        user = session.access.named(name, loopback=session.peer.loopback) if name else None
    else:
        name, password = (_plain if method.mechanism == "PLAIN" else _amqplain)(session, method.response)
        user = session.access.login(name, password, loopback=session.peer.loopback)
    if user is None:
        session.log.warning("login refused", user=name, mechanism=method.mechanism)
        raise _refused(session, method.mechanism)
    _logged_in(session, user)


def _plain(session: Session, response: bytes) -> tuple[str, bytes]:
    """RFC 4616 without an authorisation identity, as RabbitMQ has it: NUL user NUL password."""
    parts = response.split(b"\0")
    if len(parts) != 3 or parts[0]:
        raise Silence
    return parts[1].decode("utf-8", "surrogateescape"), parts[2]


def _amqplain(session: Session, response: bytes) -> tuple[str, bytes]:
    """AMQP 0-8's: a table without its length, with LOGIN and PASSWORD."""
    table = decode_table_body(response, 0, len(response))
    if "LOGIN" not in table or "PASSWORD" not in table:
        raise Silence
    name, password = table["LOGIN"], table["PASSWORD"]
    if not isinstance(name, str) or not isinstance(password, str):
        raise _refused(session, "AMQPLAIN")
    return name, password.encode("utf-8", "surrogateescape")


def _refused(session: Session, mechanism: str) -> Exception:
    if not session.capability("authentication_failure_close"):
        return Silence()
    return ConnectionFailure(
        ReplyCode.ACCESS_REFUSED,
        f"Login was refused using authentication mechanism {mechanism}. For details see the broker logfile.",
    )


def _logged_in(session: Session, user: User) -> None:
    session.user = user
    session.state = "tuning"
    settings = session.settings
    session.send(
        methods.ConnectionTune(
            channel_max=settings.channel_max, frame_max=settings.frame_max_bytes, heartbeat=settings.heartbeat_seconds
        )
    )


def _tune_ok(session: Session, method: methods.ConnectionTuneOk) -> None:
    settings = session.settings
    session.frame_max = _negotiated(
        session, "frame_max", method.frame_max, settings.frame_max_bytes, settings.frame_min_bytes
    )
    session.channel_max = _negotiated(session, "channel_max", method.channel_max, settings.channel_max, 1)
    session.parser.limit = session.frame_max
    session.heartbeat_ms = method.heartbeat * 1000
    session.state = "opening"


def _negotiated(session: Session, what: str, theirs: int, ours: int, least: int) -> int:
    """A limit that the peer may lower but not raise; 0 asks for none, which would raise it."""
    if theirs == 0 or theirs > ours or theirs < least:
        session.log.warning(f"negotiated {what} is out of range", asked=theirs, most=ours, least=least)
        raise Silence
    return theirs


def _open(session: Session, method: methods.ConnectionOpen) -> None:
    vhost = session.broker.vhosts.get(method.virtual_host)
    if vhost is None:
        raise ConnectionFailure(ReplyCode.NOT_ALLOWED, f"vhost {method.virtual_host} not found")
    session.enter(vhost)
    session.send(methods.ConnectionOpenOk())


HANDLERS: dict[tuple[str, type[Method]], Callable[[Session, Any], None]] = {
    ("starting", methods.ConnectionStartOk): _start_ok,
    ("tuning", methods.ConnectionTuneOk): _tune_ok,
    ("opening", methods.ConnectionOpen): _open,
}


def refuse(session: Session, error: AMQPError) -> None:
    """What becomes of an error before the connection is open."""
    if session.state == "opening" and error.code is not ReplyCode.INTERNAL_ERROR:
        session.close(error, session.settings.close_timeout_ms)
    elif error.code is ReplyCode.ACCESS_REFUSED:
        session.close(error, session.settings.refused_linger_ms)
    else:
        session.linger()
