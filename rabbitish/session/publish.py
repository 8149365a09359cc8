"""Publishing, the generic path: every check in RabbitMQ's order, then routing, then the queues.

What a publish means is worked out once per (exchange, routing key, flags) into a `Route` and remembered by the bytes of
basic.publish's arguments; fastlane.py uses those. This module is what fills that memory and the oracle that the fast
lane is tested against.

Order of the checks: rabbit_channel:handle_method(basic.publish) of RabbitMQ 3.10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeVar

from rabbitish.core.exchange import Exchange, Target
from rabbitish.core.message import Address
from rabbitish.core.routing import depends_on_headers
from rabbitish.core.vhost import REPLY_TO
from rabbitish.errors import ChannelError, ConnectionFailure, ReplyCode
from rabbitish.session.assembly import Command
from rabbitish.session.content import (
    Summary,
    WireMessage,
    WireStamp,
    address_suffix,
    check_delivery_mode,
    copy_keys,
    decoded_headers,
    framed_content,
    parse_expiration,
)
from rabbitish.session.permissions import permit, permit_topic
from rabbitish.wire import methods

if TYPE_CHECKING:
    from rabbitish.session.carried import Stream
    from rabbitish.session.channel import Channel
    from rabbitish.session.connection import Session
    from rabbitish.session.fastlane import Template
    from rabbitish.session.shapes import Kind, Shape

K = TypeVar("K")
T = TypeVar("T")
Form: TypeAlias = tuple[bytes, bytes]
"""Method frame and head of the header frame of a publish, and the flags of its properties."""
# Of publishes whose property lists are equally long, so many shapes are remembered.
_SHAPES_OF_A_FORM = 4


class Route:
    """Where publishes with the same arguments go, until bindings change."""

    __slots__ = ("address", "exchange", "mandatory", "suffix", "targets")

    def __init__(self, exchange: Exchange, address: Address, targets: list[Target] | None, *, mandatory: bool) -> None:
        self.exchange = exchange
        self.address = address
        self.suffix = address_suffix(address)
        self.targets = targets  # None: it depends on the headers of each message
        self.mandatory = mandatory


class RouteMemory:
    """Routes by the argument bytes of basic.publish, and what the fast lane keeps by the bytes that a publish begins
    with.

    One a user and virtual host, since what is allowed depends on the user; emptied when bindings or permissions change,
    and when full.
    """

    __slots__ = ("_most", "kinds", "routes", "shapes", "templates")

    def __init__(self, most: int) -> None:
        self._most = most
        self.routes: dict[bytes, Route] = {}
        self.templates: dict[bytes, Template] = {}
        self.kinds: dict[tuple[bytes, bool, int, bool], Kind] = {}
        self.shapes: dict[Form, list[Shape]] = {}

    def clear(self) -> None:
        """Forget everything."""
        self.routes.clear()
        self.templates.clear()
        self.kinds.clear()
        self.shapes.clear()

    def remember(self, memory: dict[K, T], key: K, value: T) -> None:
        """Keep something, in place of everything else where that is too much."""
        if self._most:
            if len(memory) >= self._most:
                memory.clear()
            memory[key] = value

    def remember_shape(self, form: Form, shape: Shape) -> None:
        """Know publishes of this shape from now on."""
        self.remember(self.shapes, form, [shape, *self.shapes.get(form, ())[: _SHAPES_OF_A_FORM - 1]])


def find_route(session: Session, method: methods.BasicPublish) -> Route:
    """What a publish means. ConnectionFailure 540: immediate. ChannelError: 404, 403 for an internal exchange, and for
    what the user may not do: so a route that is remembered is one that is allowed.
    """
    vhost = session.vhost
    if method.immediate:
        raise ConnectionFailure(ReplyCode.NOT_IMPLEMENTED, "immediate=true")
    permit(session, methods.BasicPublish, "exchange", method.exchange)
    exchange = vhost.exchange(method.exchange)
    if exchange.internal:
        raise ChannelError(
            ReplyCode.ACCESS_REFUSED, f"cannot publish to internal exchange '{exchange.name}' in vhost '{vhost.name}'"
        )
    permit_topic(session, methods.BasicPublish, "exchange", exchange, method.routing_key)
    targets = None
    if not depends_on_headers(exchange, vhost.exchanges.get):
        targets = vhost.route(exchange, (method.routing_key,), {})
    return Route(exchange, Address(method.exchange, method.routing_key), targets, mandatory=method.mandatory)


def publish(channel: Channel, method: methods.BasicPublish, command: Command) -> None:
    """Publish a message. ChannelError, ConnectionFailure: it is refused."""
    if channel.stream is not None and channel.stream.count():
        _count_again(channel, channel.stream)
        return
    session = channel.session
    raw, size = command.properties, command.size
    if size > session.settings.max_message_bytes:
        raise ChannelError(
            ReplyCode.PRECONDITION_FAILED,
            f"message size {size} is larger than configured max size {session.settings.max_message_bytes}",
        )
    route = session.route(method, command.arguments)
    summary = session.properties.summary(raw)
    content = framed_content(channel.number, raw, size, command.body, session.settings.frame_max_bytes)
    message = WireMessage(WireStamp(route.address, summary.traits, size, channel.number, route.suffix), content)
    targets = route.targets
    if not summary.plain or targets is None:
        message, targets = _route_by_headers(channel, route, summary, raw, message)
    if session.hub.on_publish is not None:
        targets = session.hub.on_publish(channel, message, targets)
    if channel.tracer is not None:
        channel.tracer.published(channel, message, targets)
    count_publish(channel)
    if channel.transaction is not None:
        number = channel.stream.number if channel.stream is not None else 0
        channel.transaction.publishes.append((route.mandatory, message, targets, number))
    else:
        hand_over(channel, message, targets, mandatory=route.mandatory)


def _route_by_headers(
    channel: Channel, route: Route, summary: Summary, raw: bytes, message: WireMessage
) -> tuple[WireMessage, list[Target]]:
    """The rare publish whose properties matter: user id, reply address, CC and BCC, a headers exchange on the way."""
    session = channel.session
    found = summary.digest
    reply_name = ""
    if found.reply_to == REPLY_TO:
        if channel.reply_consumer is None:
            raise ChannelError(ReplyCode.PRECONDITION_FAILED, "fast reply consumer does not exist")
        reply_name = channel.reply_consumer.name
    _check_user_id(channel, found.user_id)
    if found.expiration is not None:
        parse_expiration(found.expiration)
    headers = decoded_headers(raw, found)
    copies = copy_keys(headers)
    check_delivery_mode(found.delivery_mode)
    if copies:
        address = Address(route.address.exchange, route.address.routing_key, copies)
        message.stamp = WireStamp(address, summary.traits, message.size, channel.number, route.suffix)
    if reply_name or "BCC" in headers:
        properties = message.properties()
        if reply_name:
            properties.reply_to = reply_name
        properties.headers = {key: value for key, value in headers.items() if key != "BCC"}
        if found.headers_span is None:
            properties.headers = None
        message = message.with_properties(properties)
    targets = route.targets
    if targets is None or copies:
        targets = session.vhost.route(route.exchange, message.address.routing_keys, headers)
    return message, targets


def _check_user_id(channel: Channel, user_id: str | None) -> None:
    user = channel.session.user
    if user_id is not None and user_id != user.name and "impersonator" not in user.tags:
        raise ChannelError(
            ReplyCode.PRECONDITION_FAILED,
            f"user_id property set to '{user_id}' but authenticated user was '{user.name}'",
        )


def count_publish(channel: Channel) -> None:
    """Number a publish in confirm mode."""
    if channel.confirms is not None:
        channel.confirms.published += 1
        channel.session.note_confirms(channel)
    channel.session.note_publish()


def _count_again(channel: Channel, stream: Stream) -> None:
    """Number a publish that the journal has, and confirm it, or its transaction, when it is safe there."""
    count_publish(channel)
    if channel.confirms is not None:
        channel.confirms.safe_at = max(channel.confirms.safe_at, stream.safe_at)
    elif channel.transaction is not None:
        channel.transaction.safe_at = stream.safe_at


def hand_over(
    channel: Channel, message: WireMessage, targets: list[Target], *, mandatory: bool, number: int = 0
) -> bool:
    """Put a message into its queues; an unroutable one goes back if it is mandatory. False: a queue refused it.

    `number` is the publish's if it is not the last one.
    """
    if mandatory and not any(target.holds for target in targets):
        give_back(channel, message)
    now = channel.session.now
    channel.session.vhost.record_published(targets, message, now)
    if message.lsn and channel.confirms is not None:
        channel.confirms.safe_at = message.lsn
    accepted = True
    for target in targets:
        accepted = target.enqueue(message, now) and accepted
    if not accepted and channel.confirms is not None:
        channel.confirms.refuse()
    stream = channel.stream
    if stream is not None and accepted and message.lsn and all(target.durable for target in targets):
        stream.stored(number or stream.number)
    return accepted


def give_back(channel: Channel, message: WireMessage) -> None:
    """basic.return 312: nobody is there to take it."""
    session = channel.session
    address = message.address
    returned = methods.BasicReturn(
        reply_code=ReplyCode.NO_ROUTE,
        reply_text=ReplyCode.NO_ROUTE.name,
        exchange=address.exchange,
        routing_key=address.routing_key,
    )
    channel.send(returned)
    session.outbox.write(message.framed(channel.number, session.frame_max))
