"""What follows from a leader's answer for what must be known of a channel: a table of method -> function.

The client is told the answer in any case; here it is only noted. Names are told in full by then, since answers come in
the order of the requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rabbitish.gateway.channel import Channel, Consumer
from rabbitish.gateway.topology import Topology
from rabbitish.wire import methods
from rabbitish.wire.method import Method

Note = Callable[[Channel, Topology, Any, Any], None]


def _opened(channel: Channel, topology: Topology, method: Method, answer: Method) -> None:
    channel.opened = True


def _qos(channel: Channel, topology: Topology, method: methods.BasicQos, answer: Method) -> None:
    if method.global_:
        channel.global_prefetch = method.prefetch_count
    else:
        channel.prefetch, channel.global_prefetch = method.prefetch_count, 0


def _consume(
    channel: Channel, topology: Topology, method: methods.BasicConsume, answer: methods.BasicConsumeOk
) -> None:
    tag = answer.consumer_tag
    topology.consumed(method.queue)
    consume = replace(method, consumer_tag=tag, nowait=False)
    channel.consumers[tag] = Consumer(consume, channel.prefetch, channel.global_prefetch)


def _declared(
    channel: Channel, topology: Topology, method: methods.QueueDeclare, answer: methods.QueueDeclareOk
) -> None:
    channel.last_queue = answer.queue
    topology.declared(method, answer.queue)


def _exchange_declared(channel: Channel, topology: Topology, method: methods.ExchangeDeclare, answer: Method) -> None:
    topology.declared(method, method.exchange)


def _queue_deleted(channel: Channel, topology: Topology, method: methods.QueueDelete, answer: Method) -> None:
    topology.queue_gone(method.queue)


def _exchange_deleted(channel: Channel, topology: Topology, method: methods.ExchangeDelete, answer: Method) -> None:
    topology.exchange_gone(method.exchange)


def _bound(
    channel: Channel, topology: Topology, method: methods.QueueBind | methods.ExchangeBind, answer: Method
) -> None:
    topology.bound(method)


def _unbound(
    channel: Channel, topology: Topology, method: methods.QueueUnbind | methods.ExchangeUnbind, answer: Method
) -> None:
    topology.unbound(method)


NOTES: dict[type[Method], Note] = {
    methods.ChannelOpen: _opened,
    methods.BasicQos: _qos,
    methods.BasicConsume: _consume,
    methods.QueueDeclare: _declared,
    methods.ExchangeDeclare: _exchange_declared,
    methods.QueueDelete: _queue_deleted,
    methods.ExchangeDelete: _exchange_deleted,
    methods.QueueBind: _bound,
    methods.ExchangeBind: _bound,
    methods.QueueUnbind: _unbound,
    methods.ExchangeUnbind: _unbound,
}
