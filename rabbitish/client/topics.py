"""Topic subscriptions: a queue, its bindings and a consumer as one block.

The queue of a subscription without a name is exclusive and is deleted when the block ends; one with a name is durable
and stays, so that what is published in between is not missed.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from rabbitish.client.channel import Channel
    from rabbitish.client.consumer import Consumer
    from rabbitish.values import Table


class SubscribeOptions(TypedDict, total=False):
    """See `Channel.subscribe`."""

    exchange: str
    queue: str
    queue_arguments: Table
    prefetch: int
    no_ack: bool
    priority: int


@contextlib.asynccontextmanager
async def subscription(
    channel: Channel, routing_keys: tuple[str, ...], options: SubscribeOptions
) -> AsyncIterator[Consumer]:
    """See `Channel.subscribe`."""
    name = options.get("queue", "")
    exchange = options.get("exchange", "amq.topic")
    arguments = options.get("queue_arguments")
    queue = await channel.declare_queue(name, durable=bool(name), exclusive=not name, arguments=arguments)
    try:
        for routing_key in routing_keys:
            await queue.bind(exchange, routing_key)
        consumer = queue.consume(
            prefetch=options.get("prefetch", 100),
            no_ack=options.get("no_ack", False),
            priority=options.get("priority"),
        )
        async with consumer as messages:
            yield messages
    finally:
        if not name:
            queue.delete_soon()
