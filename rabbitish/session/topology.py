"""The methods of classes exchange and queue: each checks names and permissions, asks the virtual host, and answers."""

from __future__ import annotations

from rabbitish.core import arguments as args
from rabbitish.core import naming
from rabbitish.core.queue import Queue
from rabbitish.core.vhost import REPLY_TO, Vhost
from rabbitish.errors import ChannelError, ReplyCode
from rabbitish.session.channel import Channel, handles, strip_name
from rabbitish.session.permissions import permit, permit_topic
from rabbitish.wire import methods
from rabbitish.wire.method import Method


@handles(methods.ExchangeDeclare)
def exchange_declare(channel: Channel, method: methods.ExchangeDeclare) -> None:
    """exchange.declare; passive asks only whether it is there."""
    vhost, name = channel.session.vhost, strip_name(method.exchange)
    if method.passive:
        naming.check_not_default(name)
        vhost.exchange(name)
    else:
        _permit_exchange(channel, method, name)
        vhost.declare_exchange(
            name,
            method.type,
            durable=method.durable,
            auto_delete=method.auto_delete,
            internal=method.internal,
            arguments=method.arguments,
        )
    channel.reply(method.nowait, methods.ExchangeDeclareOk())


def _permit_exchange(channel: Channel, method: methods.ExchangeDeclare, name: str) -> None:
    """ChannelError 403: the user may not declare this exchange; and what RabbitMQ finds fault with before."""
    session = channel.session
    vhost = session.vhost
    naming.check_exchange(name, method.type)
    permit(session, methods.ExchangeDeclare, "exchange", name)
    if name not in vhost.exchanges:
        naming.check_name("exchange", name)
        alternate = args.alternate_exchange(name, vhost.name, method.arguments)
        if alternate is not None:
            permit(session, methods.ExchangeDeclare, "exchange with alternate", name)
            permit(session, methods.ExchangeDeclare, "alternate", alternate)


@handles(methods.ExchangeDelete)
def exchange_delete(channel: Channel, method: methods.ExchangeDelete) -> None:
    """exchange.delete."""
    name = strip_name(method.exchange)
    naming.check_deletable(name, channel.session.vhost.name)
    permit(channel.session, methods.ExchangeDelete, "exchange", name)
    channel.session.vhost.delete_exchange(name, if_unused=method.if_unused)
    channel.reply(method.nowait, methods.ExchangeDeleteOk())


def _permit_binding(channel: Channel, method: type[Method], destination: str, source: str, key: str) -> Vhost:
    """The checks common to all four methods about bindings, in their order. ChannelError: 403."""
    session = channel.session
    vhost = session.vhost
    permit(session, method, "destination", destination)
    if method in (methods.ExchangeBind, methods.ExchangeUnbind):
        naming.check_not_default(destination)
    naming.check_not_default(source)
    permit(session, method, "source", source)
    if source in vhost.exchanges:
        permit_topic(session, method, "source", vhost.exchanges[source], key)
    return vhost


@handles(methods.ExchangeBind)
def exchange_bind(channel: Channel, method: methods.ExchangeBind) -> None:
    """exchange.bind."""
    source, destination = strip_name(method.source), strip_name(method.destination)
    vhost = _permit_binding(channel, methods.ExchangeBind, destination, source, method.routing_key)
    vhost.exchange(source)
    vhost.bind(source, vhost.exchange(destination), method.routing_key, method.arguments)
    channel.reply(method.nowait, methods.ExchangeBindOk())


@handles(methods.ExchangeUnbind)
def exchange_unbind(channel: Channel, method: methods.ExchangeUnbind) -> None:
    """exchange.unbind."""
    source, destination = strip_name(method.source), strip_name(method.destination)
    vhost = _permit_binding(channel, methods.ExchangeUnbind, destination, source, method.routing_key)
    if source in vhost.exchanges and destination in vhost.exchanges:
        vhost.unbind(source, vhost.exchanges[destination], method.routing_key, method.arguments)
    channel.reply(method.nowait, methods.ExchangeUnbindOk())


@handles(methods.QueueDeclare)
def queue_declare(channel: Channel, method: methods.QueueDeclare) -> None:
    """queue.declare; passive asks only how it is. The queue becomes the one that an empty name means."""
    session = channel.session
    vhost, now = session.vhost, session.now
    name = strip_name(method.queue)
    if name.startswith(REPLY_TO):
        if name != REPLY_TO and name not in vhost.replies:
            raise ChannelError(ReplyCode.NOT_FOUND, f"no queue '{name}' in vhost '{vhost.name}'")
        answer = methods.QueueDeclareOk(queue=name, message_count=0, consumer_count=1)
        channel.last_queue = name
        channel.reply(method.nowait, answer)
        return
    queue = vhost.passive_queue(name, session, now) if method.passive else _declare(channel, method, name)
    channel.last_queue = queue.name
    if not method.nowait:
        queue.settle(now)
        channel.send(
            methods.QueueDeclareOk(queue=queue.name, message_count=queue.ready, consumer_count=len(queue.consumers))
        )


def _declare(channel: Channel, method: methods.QueueDeclare, name: str) -> Queue:
    session = channel.session
    vhost = session.vhost
    kind = {"durable": method.durable, "exclusive": method.exclusive, "auto_delete": method.auto_delete}
    arguments = vhost.with_default_type(method.arguments, **kind)
    if name not in session.restorable:
        name = vhost.name_for_queue(name, arguments)
    permit(session, methods.QueueDeclare, "queue", name)
    if name not in vhost.queues:
        vhost.check_queue_limit(name)
        exchange = args.dead_letter_exchange(name, vhost.name, arguments)
        if exchange is not None:
            permit(session, methods.QueueDeclare, "queue with dead letters", name)
            permit(session, methods.QueueDeclare, "dead letter exchange", exchange)
    return vhost.declare_named_queue(name, **kind, arguments=arguments, owner=session, now=session.now)


@handles(methods.QueueDelete)
def queue_delete(channel: Channel, method: methods.QueueDelete) -> None:
    """queue.delete."""
    session = channel.session
    name = channel.queue_name(strip_name(method.queue))
    permit(session, methods.QueueDelete, "queue", name)
    count = session.vhost.delete_queue(
        name,
        session,
        session.now,
        if_unused=method.if_unused,
        if_empty=method.if_empty,
    )
    channel.reply(method.nowait, methods.QueueDeleteOk(message_count=count))


@handles(methods.QueuePurge)
def queue_purge(channel: Channel, method: methods.QueuePurge) -> None:
    """queue.purge: what is ready, not what is unacknowledged."""
    name = channel.queue_name(method.queue)
    permit(channel.session, methods.QueuePurge, "queue", name)
    queue = channel.queue(name)
    queue.settle(channel.session.now)
    channel.reply(method.nowait, methods.QueuePurgeOk(message_count=queue.purge()))


@handles(methods.QueueBind)
def queue_bind(channel: Channel, method: methods.QueueBind) -> None:
    """queue.bind; with neither queue nor routing key named, the key is the queue's name (AMQP 0-9-1)."""
    source = strip_name(method.exchange)
    name = channel.queue_name(strip_name(method.queue))
    key = method.routing_key if method.queue or method.routing_key else name
    vhost = _permit_binding(channel, methods.QueueBind, name, source, key)
    vhost.exchange(source)
    vhost.bind(source, vhost.queue(name, channel.session), key, method.arguments)
    channel.reply(method.nowait, methods.QueueBindOk())


@handles(methods.QueueUnbind)
def queue_unbind(channel: Channel, method: methods.QueueUnbind) -> None:
    """queue.unbind; a missing binding, queue or exchange is no error."""
    source = strip_name(method.exchange)
    name = channel.queue_name(strip_name(method.queue))
    key = method.routing_key if method.queue or method.routing_key else name
    vhost = _permit_binding(channel, methods.QueueUnbind, name, source, key)
    if source in vhost.exchanges and name in vhost.queues:
        queue = vhost.queues[name]
        if vhost.is_bound(source, queue, key, method.arguments):
            vhost.unbind(source, vhost.queue(name, channel.session), key, method.arguments)
    channel.send(methods.QueueUnbindOk())
