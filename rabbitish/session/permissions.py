"""Which method needs which permission on what: the table, and the one place where it is looked at.

The rows are RabbitMQ's (rabbit_channel: check_configure_permitted and its sisters). Handlers say at which resource of
their method they have come, in RabbitMQ's order; what that takes stands here alone. A refusal is a 403 in RabbitMQ's
words, and one line in the audit log. Nothing is remembered here: a change of permissions holds from the next method on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rabbitish.core.access.rights import Kind
from rabbitish.core.exchange import Exchange
from rabbitish.errors import ChannelError, ReplyCode
from rabbitish.wire import methods
from rabbitish.wire.method import Method

if TYPE_CHECKING:
    from rabbitish.session.connection import Session

# What the default exchange, whose name is empty, is called in permissions.
_DEFAULT_EXCHANGE = "amq.default"
_TOO_MANY_STEPS = "the permission's expression takes too many steps to match"

NEEDS: dict[tuple[type[Method], str], tuple[Kind, str]] = {
    (methods.ExchangeDeclare, "exchange"): ("configure", "exchange"),
    # A new exchange with an alternate, and that alternate:
    (methods.ExchangeDeclare, "exchange with alternate"): ("read", "exchange"),
    (methods.ExchangeDeclare, "alternate"): ("write", "exchange"),
    (methods.ExchangeDelete, "exchange"): ("configure", "exchange"),
    (methods.ExchangeBind, "destination"): ("write", "exchange"),
    (methods.ExchangeBind, "source"): ("read", "exchange"),
    (methods.ExchangeUnbind, "destination"): ("write", "exchange"),
    (methods.ExchangeUnbind, "source"): ("read", "exchange"),
    (methods.QueueDeclare, "queue"): ("configure", "queue"),
    # A new queue with a dead letter exchange, and that exchange:
    (methods.QueueDeclare, "queue with dead letters"): ("read", "queue"),
    (methods.QueueDeclare, "dead letter exchange"): ("write", "exchange"),
    (methods.QueueDelete, "queue"): ("configure", "queue"),
    (methods.QueuePurge, "queue"): ("read", "queue"),
    (methods.QueueBind, "destination"): ("write", "queue"),
    (methods.QueueBind, "source"): ("read", "exchange"),
    (methods.QueueUnbind, "destination"): ("write", "queue"),
    (methods.QueueUnbind, "source"): ("read", "exchange"),
    (methods.BasicPublish, "exchange"): ("write", "exchange"),
    (methods.BasicConsume, "queue"): ("read", "queue"),
    (methods.BasicGet, "queue"): ("read", "queue"),
}
"""(Method, what it has come to) -> the permission that takes, and what kind of thing it is. Passive declares need none,
and neither do methods that are not here."""

TOPIC_NEEDS: dict[tuple[type[Method], str], Kind] = {
    (methods.ExchangeBind, "source"): "read",
    (methods.ExchangeUnbind, "source"): "read",
    (methods.QueueBind, "source"): "read",
    (methods.QueueUnbind, "source"): "read",
    (methods.BasicPublish, "exchange"): "write",
}
"""(Method, topic exchange it has come to) -> the topic permission that its routing key takes."""


def permit(session: Session, method: type[Method], what: str, name: str) -> None:
    """ChannelError 403: the user may not do this to the queue or exchange of this name."""
    kind, resource = NEEDS[method, what]
    user, vhost = session.user.name, session.vhost.name
    if resource == "exchange":
        name = name or _DEFAULT_EXCHANGE
    rights = session.access.rights(user, vhost)
    if not rights.may(kind, name):
        session.hub.audit(
            "permission denied",
            user=user,
            vhost=vhost,
            permission=kind,
            resource=resource,
            name=name,
            reason=_TOO_MANY_STEPS if (kind, name) in rights.gave_up else None,
            connection=session.peer.name,
        )
        raise ChannelError(
            ReplyCode.ACCESS_REFUSED, f"access to {resource} '{name}' in vhost '{vhost}' refused for user '{user}'"
        )


def permit_topic(session: Session, method: type[Method], what: str, exchange: Exchange, routing_key: str) -> None:
    """ChannelError 403: the user may not use this routing key with this topic exchange; any with another exchange."""
    if exchange.type != "topic":
        return
    kind = TOPIC_NEEDS[method, what]
    user, vhost = session.user.name, session.vhost.name
    rights = session.access.rights(user, vhost)
    if not rights.may_topic(kind, exchange.name, routing_key):
        session.hub.audit(
            "permission denied",
            user=user,
            vhost=vhost,
            permission=kind,
            resource="topic",
            name=exchange.name,
            routing_key=routing_key,
            reason=_TOO_MANY_STEPS if (kind, exchange.name, routing_key) in rights.gave_up else None,
            connection=session.peer.name,
        )
        raise ChannelError(
            ReplyCode.ACCESS_REFUSED,
            f"access to topic '{routing_key}' in exchange '{exchange.name}' in vhost '{vhost}' "
            f"refused for user '{user}'",
        )
