"""From the protocol header to connection.open-ok: who the peer is, which limits hold, which virtual host it works in.

A table of (state, method) -> handler; what is not in it is an unexpected method. What a peer gets wrong here is
answered as RabbitMQ does: some refusals with a connection.close, the others with silence and, after a while, a closed
socket, so that guessing is slow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rabbitish import __version__
from rabbitish.core.access.logins import Attempt
from rabbitish.core.access.records import User
from rabbitish.errors import AMQPError, ConnectionFailure, ReplyCode
from rabbitish.values import Table
from rabbitish.wire import methods
from rabbitish.wire.method import Method
from rabbitish.wire.table import decode_table_body

if TYPE_CHECKING:
    from rabbitish.session.connection import Session

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
        "cluster_name": session.hub.cluster_name,
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
            mechanisms=" ".join(offered(session)).encode(),
            locales=b"en_US",
        )
    )


def offered(session: Session) -> list[str]:
    """The authentication mechanisms that this peer may use.

    As with RabbitMQ, EXTERNAL even to one without a certificate: the refusal is easier to read than a missing offer.
    """
    missing = set()
    if not session.settings.anonymous_user:
        missing.add("ANONYMOUS")
    if session.peer_certificate_name is None:
        missing.add("EXTERNAL")
    return [name for name in MECHANISMS if name not in missing]


def _start_ok(session: Session, method: methods.ConnectionStartOk) -> None:
    session.client_properties = method.client_properties
    capabilities = method.client_properties.get("capabilities")
    session.capabilities = capabilities if isinstance(capabilities, dict) else {}
    if method.mechanism not in offered(session):
        session.log.warning("unknown authentication mechanism", mechanism=method.mechanism)
        raise Silence
    session.mechanism = method.mechanism
    MECHANISMS[method.mechanism](session, method.response)


def _plain(session: Session, response: bytes) -> None:
    """RFC 4616 without an authorisation identity, as RabbitMQ has it: NUL user NUL password."""
    parts = response.split(b"\0")
    if len(parts) != 3 or parts[0]:
        raise Silence
    _by_password(session, parts[1].decode("utf-8", "surrogateescape"), parts[2])


def _amqplain(session: Session, response: bytes) -> None:
    """AMQP 0-8's: a table without its length, with LOGIN and PASSWORD."""
    table = decode_table_body(response, 0, len(response))
    if "LOGIN" not in table or "PASSWORD" not in table:
        raise Silence
    name, password = table["LOGIN"], table["PASSWORD"]
    if not isinstance(name, str) or not isinstance(password, str):
        raise refused(session, "", "no strings")
    _by_password(session, name, password.encode("utf-8", "surrogateescape"))


def _anonymous(session: Session, response: bytes) -> None:
    """RFC 4505: whoever comes is the configured user; what it says of itself does not matter."""
    by_name(session, session.settings.anonymous_user)


def _external(session: Session, response: bytes) -> None:
    """RFC 4422: whoever the certificate says, whatever the response does."""
    by_name(session, session.peer_certificate_name or "")


MECHANISMS: dict[str, Callable[[Session, bytes], None]] = {
    "AMQPLAIN": _amqplain,
    "PLAIN": _plain,
    "ANONYMOUS": _anonymous,
    "EXTERNAL": _external,
}
"""Authentication mechanisms: each takes the response in start-ok, and ends in `by_name`, a password or a refusal."""


def _by_password(session: Session, name: str, password: bytes) -> None:
    """Log in with a password; if that takes long, the peer is not heard until it is known whether it is right."""
    peer = session.peer
    attempt = session.access.attempt(name, password, peer.host, session.now, loopback=peer.loopback)
    verify = session.hub.verify
    if attempt.slow and verify is not None:
        session.wait_for_login(attempt)
        verify(attempt, lambda right, now: session.login_verified(attempt, now, right=right))
    else:
        attempt.right = attempt.right or attempt.verify()
        decide(session, attempt)


def decide(session: Session, attempt: Attempt) -> None:
    """Go on from a password that was verified."""
    user = session.access.conclude(attempt, session.now)
    if user is None:
        raise refused(session, attempt.name, attempt.reason)
    rehash = session.hub.rehash
    if rehash is not None and attempt.hashed is not None and not attempt.slow:
        rehash(attempt)
    _logged_in(session, user)


def by_name(session: Session, name: str) -> None:
    """Log in somebody of whom it is known otherwise who it is."""
    user = session.access.named(name, loopback=session.peer.loopback)
    if user is None:
        raise refused(session, name, "no such user, or not from there")
    _logged_in(session, user)


def refused(session: Session, name: str, reason: str) -> Exception:
    """What to raise for a refused login; the peer does not learn the reason."""
    mechanism = session.mechanism
    session.log.warning("login refused", user=name, mechanism=mechanism, reason=reason)
    session.hub.audit("login refused", user=name, mechanism=mechanism, reason=reason, connection=session.peer.name)
    if not session.capability("authentication_failure_close"):
        return Silence()
    return ConnectionFailure(
        ReplyCode.ACCESS_REFUSED,
        f"Login was refused using authentication mechanism {mechanism}. For details see the broker logfile.",
    )


def _logged_in(session: Session, user: User) -> None:
    session.user = user
    session.state = "tuning"
    session.hub.audit("login", user=user.name, mechanism=session.mechanism, connection=session.peer.name)
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
    user = session.user
    try:
        session.hub.tally.check_connection(user, vhost.record)
        if not session.access.rights(user.name, vhost.name).enters:
            raise ConnectionFailure(
                ReplyCode.NOT_ALLOWED, f"access to vhost '{vhost.name}' refused for user '{user.name}'"
            )
    except ConnectionFailure as refusal:
        session.hub.audit(
            "access to vhost refused",
            user=user.name,
            vhost=vhost.name,
            reason=refusal.detail,
            connection=session.peer.name,
        )
        raise
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
