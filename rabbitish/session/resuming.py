"""A session that began at another leader of the cluster, and goes on here without a handshake.

A node vouches for it: the client had logged in there, and needs not show its password again. What has changed since
then counts all the same: the user and the virtual host must be there, and the one may enter the other.
"""

from __future__ import annotations

from typing import Protocol

from rabbitish.core.access.records import User
from rabbitish.core.vhost import Vhost
from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.session.carried import bring, leave
from rabbitish.session.connection import Session
from rabbitish.session.hub import Hub, Peer
from rabbitish.values import Table


class Passport(Protocol):
    """What a node says of such a session."""

    @property
    def user(self) -> str: ...
    @property
    def mechanism(self) -> str: ...
    @property
    def vhost(self) -> str: ...
    @property
    def client_properties(self) -> Table: ...
    @property
    def channel_max(self) -> int: ...
    @property
    def frame_max(self) -> int: ...
    @property
    def heartbeat(self) -> int: ...
    @property
    def names(self) -> frozenset[str]:
        """Names made up by another leader that it may declare again."""

    @property
    def mark(self) -> bytes:
        """What its publishes are known by; empty: they are not."""


def admit(hub: Hub, peer: Peer, passport: Passport) -> tuple[User, Vhost]:
    """Whose session it is and where. ConnectionFailure: it cannot go on here, and why.

    If it is here already, over a connection that its node has lost, that ends.
    """
    leave(hub, passport.mark)
    name = hub.settings.anonymous_user if passport.mechanism == "ANONYMOUS" else passport.user
    user = hub.access.named(name, loopback=peer.loopback)
    if user is None:
        raise ConnectionFailure(ReplyCode.CONNECTION_FORCED, f"user '{name}' is not there any more")
    vhost = hub.broker.vhosts.get(passport.vhost)
    if vhost is None:
        raise ConnectionFailure(ReplyCode.CONNECTION_FORCED, f"vhost '{passport.vhost}' is not there any more")
    hub.tally.check_connection(user, vhost.record)
    if not hub.access.rights(user.name, vhost.name).enters:
        raise ConnectionFailure(ReplyCode.NOT_ALLOWED, f"access to vhost '{vhost.name}' refused for user '{user.name}'")
    return user, vhost


def resume(session: Session, passport: Passport) -> None:
    """Have a session that has heard nothing yet be open. ConnectionFailure: see `admit`."""
    session.user, vhost = admit(session.hub, session.peer, passport)
    capabilities = passport.client_properties.get("capabilities")
    session.client_properties = passport.client_properties
    session.capabilities = capabilities if isinstance(capabilities, dict) else {}
    session.mechanism = passport.mechanism
    session.channel_max = passport.channel_max
    session.frame_max = session.parser.limit = passport.frame_max
    session.heartbeat_ms = passport.heartbeat * 1000
    session.restorable = passport.names
    if passport.mark:
        bring(session, passport.mark)
    session.hub.audit("session resumed", user=session.user.name, vhost=vhost.name, connection=session.peer.name)
    session.enter(vhost)
