"""What a queue refuses those who use it, beside declares: consumers, basic.get, deletion under conditions.

A quorum queue refuses what RabbitMQ's cannot do, in its words, although some of it would be easy here: who tries his
program on this broker should learn it here (rabbit_quorum_queue: consume, delete; rabbit_channel). On the other hand it
has no exclusive consumers, and lets in those who want to be.
"""

from __future__ import annotations

from rabbitish.core.arguments import refuse, resource
from rabbitish.core.consumer import Consumer
from rabbitish.core.handle import QueueHandle
from rabbitish.errors import ChannelError, ConnectionFailure, ReplyCode


def check_consumer(queue: QueueHandle, vhost: str, consumer: Consumer) -> None:
    """ChannelError 403 when either it or one that is there wants the queue for itself.

    An exclusive consumer of a queue with a single active one is refused in the same words (RabbitMQ).
    """
    others = len(queue.consumers)
    taken = others or queue.options.single_active_consumer
    # Whoever has it exclusively is alone.
    refused = (taken and consumer.exclusive) or (others == 1 and next(iter(queue.consumers)).exclusive)
    if refused and not queue.options.quorum:
        raise ChannelError(ReplyCode.ACCESS_REFUSED, f"{resource('queue', queue.name, vhost)} in exclusive use")


def check_prefetch(queue: QueueHandle, vhost: str, global_prefetch: int) -> None:
    """ConnectionFailure 540 for a consumer that shares a limit with all of its channel."""
    if global_prefetch and queue.options.quorum:
        where = resource("queue", queue.name, vhost)
        raise ConnectionFailure(ReplyCode.NOT_IMPLEMENTED, f"{where} does not support global qos")


def check_get(queue: QueueHandle, vhost: str) -> None:
    """ChannelError 405 for a basic.get that would pass by a single active consumer."""
    if queue.options.quorum and queue.options.single_active_consumer:
        raise ChannelError(
            ReplyCode.RESOURCE_LOCKED,
            f"cannot obtain access to locked {resource('queue', queue.name, vhost)}. basic.get operations are not "
            "supported by quorum queues with single active consumer",
        )


def check_conditions(queue: QueueHandle, vhost: str, *, if_unused: bool, if_empty: bool) -> None:
    """Whether a queue that is settled may be deleted. ConnectionFailure: 540. ChannelError: 406."""
    where = resource("queue", queue.name, vhost)
    if queue.options.quorum and (if_unused or if_empty):
        condition = "if-unused" if if_unused else "if-empty"
        raise ConnectionFailure(
            ReplyCode.NOT_IMPLEMENTED,
            f"cannot delete {where}. queue.delete operations with {condition} flag set are not supported by quorum "
            "queues",
        )
    if if_empty and queue.ready:
        raise refuse(f"{where} not empty")
    if if_unused and len(queue.consumers):
        raise refuse(f"{where} in use")
