"""The methods of classes exchange and queue: each checks names and permissions, asks the virtual host, and answers."""

from __future__ import annotations

from rabbitish.core.exchange import Exchange
from rabbitish.core.queue import Queue
from rabbitish.core.vhost import REPLY_TO
from rabbitish.errors import ChannelError, ReplyCode
from rabbitish.session.channel import Channel, handles, strip_name
from rabbitish.wire import methods


@handles(methods.ExchangeDeclare)
def exchange_declare(channel: Channel, method: methods.ExchangeDeclare) -> None:
    """exchange.declare; passive asks only whether it is there."""
    vhost, name = channel.session.vhost, strip_name(method.exchange)
    if method.passive:
        vhost.check_not_default(name)
        vhost.exchange(name)
    else:
        vhost.declare_exchange(
            name,
            method.type,
            durable=method.durable,
            auto_delete=method.auto_delete,
            internal=method.internal,
            arguments=method.arguments,
        )
    channel.reply(method.nowait, methods.ExchangeDeclareOk())


@handles(methods.ExchangeDelete)
def exchange_delete(channel: Channel, method: methods.ExchangeDelete) -> None:
    """exchange.delete."""
    channel.session.vhost.delete_exchange(strip_name(method.exchange), if_unused=method.if_unused)
    channel.reply(method.nowait, methods.ExchangeDeleteOk())


def _two_exchanges(channel: Channel, source: str, destination: str) -> Exchange:
    """The destination of an exchange.bind or unbind, after the checks common to both."""
    vhost = channel.session.vhost
    vhost.check_not_default(destination)
    vhost.check_not_default(source)
    vhost.exchange(source)
    return vhost.exchange(destination)


@handles(methods.ExchangeBind)
def exchange_bind(channel: Channel, method: methods.ExchangeBind) -> None:
    """exchange.bind."""
    source = strip_name(method.source)
    destination = _two_exchanges(channel, source, strip_name(method.destination))
    channel.session.vhost.bind(source, destination, method.routing_key, method.arguments)
    channel.reply(method.nowait, methods.ExchangeBindOk())


@handles(methods.ExchangeUnbind)
def exchange_unbind(channel: Channel, method: methods.ExchangeUnbind) -> None:
    """exchange.unbind."""
    vhost = channel.session.vhost
    source, destination = strip_name(method.source), strip_name(method.destination)
    vhost.check_not_default(destination)
    vhost.check_not_default(source)
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
    if method.passive:
        queue = vhost.passive_queue(name, session, now)
    else:
        queue = vhost.declare_queue(
            name,
            durable=method.durable,
            exclusive=method.exclusive,
            auto_delete=method.auto_delete,
            arguments=method.arguments,
            owner=session,
            now=now,
        )
    channel.last_queue = queue.name
    if not method.nowait:
        queue.settle(now)
        channel.send(
            methods.QueueDeclareOk(queue=queue.name, message_count=queue.ready, consumer_count=len(queue.consumers))
        )


@handles(methods.QueueDelete)
def queue_delete(channel: Channel, method: methods.QueueDelete) -> None:
    """queue.delete."""
    session = channel.session
    count = session.vhost.delete_queue(
        channel.queue_name(strip_name(method.queue)),
        session,
        session.now,
        if_unused=method.if_unused,
        if_empty=method.if_empty,
    )
    channel.reply(method.nowait, methods.QueueDeleteOk(message_count=count))


@handles(methods.QueuePurge)
def queue_purge(channel: Channel, method: methods.QueuePurge) -> None:
    """queue.purge: what is ready, not what is unacknowledged."""
    queue = channel.queue(method.queue)
    queue.settle(channel.session.now)
    channel.reply(method.nowait, methods.QueuePurgeOk(message_count=queue.purge()))


def _bound_queue(channel: Channel, queue_name: str, source: str) -> Queue:
    """The queue of a queue.bind, after the checks that come before it."""
    vhost = channel.session.vhost
    vhost.check_not_default(source)
    vhost.exchange(source)
    return vhost.queue(queue_name, channel.session)


@handles(methods.QueueBind)
def queue_bind(channel: Channel, method: methods.QueueBind) -> None:
    """queue.bind; with neither queue nor routing key named, the key is the queue's name (AMQP 0-9-1)."""
    source = strip_name(method.exchange)
    name = channel.queue_name(strip_name(method.queue))
    key = method.routing_key if method.queue or method.routing_key else name
    queue = _bound_queue(channel, name, source)
    channel.session.vhost.bind(source, queue, key, method.arguments)
    channel.reply(method.nowait, methods.QueueBindOk())


@handles(methods.QueueUnbind)
def queue_unbind(channel: Channel, method: methods.QueueUnbind) -> None:
    """queue.unbind; a missing binding, queue or exchange is no error."""
    vhost = channel.session.vhost
    source = strip_name(method.exchange)
    name = channel.queue_name(strip_name(method.queue))
    vhost.check_not_default(source)
    key = method.routing_key if method.queue or method.routing_key else name
    if source in vhost.exchanges and name in vhost.queues:
        queue = vhost.queues[name]
        if vhost.is_bound(source, queue, key, method.arguments):
            vhost.unbind(source, vhost.queue(name, channel.session), key, method.arguments)
    channel.send(methods.QueueUnbindOk())
