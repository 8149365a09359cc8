"""The methods of class basic, apart from publishing: limits, consumers, get, and what becomes of deliveries."""

from __future__ import annotations

from typing import cast

from rabbitish.core.admission import check_get, check_prefetch
from rabbitish.core.arguments import consumer_options
from rabbitish.core.vhost import REPLY_TO
from rabbitish.errors import ChannelError, ConnectionFailure, ReplyCode
from rabbitish.session.channel import Channel, handles
from rabbitish.session.consumer import ChannelConsumer
from rabbitish.session.content import WireMessage
from rabbitish.session.permissions import permit
from rabbitish.session.replies import ReplyConsumer
from rabbitish.session.unacked import Run
from rabbitish.wire import methods


@handles(methods.BasicQos)
def qos(channel: Channel, method: methods.BasicQos) -> None:
    """basic.qos: for later consumers each, or (global) for the channel as a whole; RabbitMQ's meaning of global."""
    if method.prefetch_size:
        raise ConnectionFailure(ReplyCode.NOT_IMPLEMENTED, f"prefetch_size!=0 ({method.prefetch_size})")
    if method.global_:
        channel.global_prefetch = method.prefetch_count
    else:
        channel.consumer_prefetch = method.prefetch_count
        channel.global_prefetch = 0
    channel.wake_consumers()
    channel.send(methods.BasicQosOk())


@handles(methods.BasicConsume)
def consume(channel: Channel, method: methods.BasicConsume) -> None:
    """basic.consume."""
    tag = method.consumer_tag
    reply_consumer = channel.reply_consumer
    if tag in channel.consumers or (reply_consumer is not None and tag == reply_consumer.tag):
        raise ConnectionFailure(ReplyCode.NOT_ALLOWED, f"attempt to reuse consumer tag '{tag}'")
    session = channel.session
    tag = tag or f"amq.ctag-{session.broker.token()}"
    if method.queue == REPLY_TO:
        _consume_replies(channel, tag, no_ack=method.no_ack)
        channel.reply(method.nowait, methods.BasicConsumeOk(consumer_tag=tag))
        return
    vhost = session.vhost
    name = channel.queue_name(method.queue)
    permit(session, methods.BasicConsume, "queue", name)
    queue = channel.queue(name)
    options = consumer_options(queue.name, vhost.name, method.arguments, queue.options.queue_type)
    check_prefetch(queue, vhost.name, channel.global_prefetch)
    consumer = ChannelConsumer(
        channel,
        queue,
        tag,
        no_ack=method.no_ack,
        exclusive=method.exclusive,
        priority=options.priority,
        timeout_ms=options.consumer_timeout_ms,
    )
    vhost.consume(queue, consumer)
    channel.consumers[tag] = consumer
    channel.reply(method.nowait, methods.BasicConsumeOk(consumer_tag=tag))


def _consume_replies(channel: Channel, tag: str, *, no_ack: bool) -> None:
    if not no_ack:
        raise ChannelError(ReplyCode.PRECONDITION_FAILED, "reply consumer cannot acknowledge")
    if channel.reply_consumer is not None:
        raise ChannelError(ReplyCode.PRECONDITION_FAILED, "reply consumer already set")
    channel.reply_consumer = ReplyConsumer(channel, tag)


@handles(methods.BasicCancel)
def cancel(channel: Channel, method: methods.BasicCancel) -> None:
    """basic.cancel: nothing is delivered after the answer; an unknown tag is no error."""
    tag = method.consumer_tag
    reply_consumer = channel.reply_consumer
    consumer = channel.consumers.get(tag)
    if reply_consumer is not None and reply_consumer.tag == tag:
        reply_consumer.close()
        channel.reply_consumer = None
    elif consumer is not None:
        channel.drop_consumer(consumer)
        channel.session.vhost.cancel(consumer.queue, consumer, channel.session.now)
    channel.reply(method.nowait, methods.BasicCancelOk(consumer_tag=tag))


@handles(methods.BasicGet)
def get(channel: Channel, method: methods.BasicGet) -> None:
    """basic.get."""
    session = channel.session
    name = channel.queue_name(method.queue)
    permit(session, methods.BasicGet, "queue", name)
    queue = channel.queue(name)
    check_get(queue, session.vhost.name)
    taken = queue.take(session.now, no_ack=method.no_ack)
    queue.touch(session.now)
    if taken is None:
        channel.send(methods.BasicGetEmpty())
        return
    lane, position, message, returns = taken
    redelivered = returns > 0 or position < lane.doubtful
    channel.last_delivery_tag += 1
    tag = channel.last_delivery_tag
    if not method.no_ack:
        kept = queue.take_husks([message])[0] if queue.crowded else message
        channel.unacked.add(Run(tag, queue, lane, position, [kept], returns, None, 0))
    channel.send(
        methods.BasicGetOk(
            delivery_tag=tag,
            redelivered=redelivered,
            exchange=message.address.exchange,
            routing_key=message.address.routing_key,
            message_count=queue.ready,
        )
    )
    sent = cast("WireMessage", message)
    session.outbox.write(sent.framed(channel.number, session.frame_max))
    if channel.tracer is not None:
        channel.tracer.delivered(channel, queue.name, [sent], None, redelivered=redelivered)
        if channel.tracer.full:
            session.occupy(channel.tracer.make_room())


@handles(methods.BasicAck)
def ack(channel: Channel, method: methods.BasicAck) -> None:
    """basic.ack."""
    taken = channel.take_unacked(method.delivery_tag, multiple=method.multiple)
    if channel.transaction is not None:
        channel.transaction.ack(taken)
    else:
        channel.ack(taken)


@handles(methods.BasicNack)
def nack(channel: Channel, method: methods.BasicNack) -> None:
    """basic.nack, RabbitMQ's reject of many."""
    _reject(channel, method.delivery_tag, multiple=method.multiple, requeue=method.requeue)


@handles(methods.BasicReject)
def reject(channel: Channel, method: methods.BasicReject) -> None:
    """basic.reject."""
    _reject(channel, method.delivery_tag, multiple=False, requeue=method.requeue)


def _reject(channel: Channel, delivery_tag: int, *, multiple: bool, requeue: bool) -> None:
    taken = channel.take_unacked(delivery_tag, multiple=multiple)
    if channel.transaction is not None:
        channel.transaction.reject(taken, requeue=requeue)
    else:
        channel.reject(taken, requeue=requeue)


@handles(methods.BasicRecover)
def recover(channel: Channel, method: methods.BasicRecover) -> None:
    """basic.recover: everything unacknowledged on the channel goes back to its queue, not only to this consumer."""
    _recover(channel, requeue=method.requeue)
    channel.send(methods.BasicRecoverOk())


@handles(methods.BasicRecoverAsync)
def recover_async(channel: Channel, method: methods.BasicRecoverAsync) -> None:
    """basic.recover-async: the same without an answer."""
    _recover(channel, requeue=method.requeue)


def _recover(channel: Channel, *, requeue: bool) -> None:
    if not requeue:
        raise ConnectionFailure(ReplyCode.NOT_IMPLEMENTED, "requeue=false")
    channel.reject(channel.take_unacked(0, multiple=True), requeue=True)
