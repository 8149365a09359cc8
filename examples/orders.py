"""Orders are charged; what fails is tried again later, and put aside after three times. Tested by test_orders.py.

    python examples/orders.py work [URL]           run as many of these as there is work for
    python examples/orders.py place ORDER [URL]

A queue a delay, each with a TTL and the work queue behind it, is how RabbitMQ waits: nobody sleeps, and what waits
survives a restart. An order is never lost: it is acknowledged when it is charged, or safe in the queue that it goes to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count

import pika
from pika.adapters.blocking_connection import BlockingChannel

ORDERS, PARKED = "orders", "orders.parked"
DELAYS_SECONDS = (60, 600, 3600)
LOCAL = "amqp://guest:guest@localhost:5672/"


def later(seconds: int) -> str:
    """The queue that gives its messages to the work queue after so long."""
    return f"{ORDERS}.later.{seconds}"


def open_channel(url: str) -> BlockingChannel:
    """A channel in confirm mode on which all queues are declared; whoever comes first makes them."""
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.queue_declare(ORDERS, durable=True)
    channel.queue_declare(PARKED, durable=True)
    for seconds in DELAYS_SECONDS:
        arguments = {
            "x-message-ttl": seconds * 1000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": ORDERS,
        }
        channel.queue_declare(later(seconds), durable=True, arguments=arguments)
    channel.confirm_delivery()
    return channel


def place(url: str, order: str) -> None:
    """Place an order; when this returns, the broker has it. NackError, AMQPConnectionError: it may not have."""
    channel = open_channel(url)
    with channel.connection:
        channel.basic_publish("", ORDERS, order.encode(), pika.BasicProperties(delivery_mode=2))


def work(url: str, charge: Callable[[str], None], most: int | None = None) -> None:
    """Charge orders for ever, or so many."""
    channel = open_channel(url)
    channel.basic_qos(prefetch_count=1)
    for number in count(1):
        method, properties, body = next(channel.consume(ORDERS))
        try:
            charge(body.decode())
        except Exception as error:  # noqa: BLE001 (whatever it is, the order must not be lost)
            try_later(channel, body, (properties.headers or {}).get("attempts", 0), str(error))
        channel.basic_ack(method.delivery_tag)
        if number == most:
            break
    channel.cancel()
    channel.connection.close()


def try_later(channel: BlockingChannel, body: bytes, attempts: int, error: str) -> None:
    """Put an order that could not be charged where it waits, or aside when that has been enough."""
    queue = later(DELAYS_SECONDS[attempts]) if attempts < len(DELAYS_SECONDS) else PARKED
    headers = {"attempts": attempts + 1, "error": error}
    channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2, headers=headers))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["work", *rest]:
            work(rest[0] if rest else LOCAL, lambda order: print("charged:", order, flush=True))
        case ["place", order, *rest]:
            place(rest[0] if rest else LOCAL, order)
        case _:
            sys.exit(__doc__)
