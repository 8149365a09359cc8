"""A work queue with pika: fair dispatch, acknowledgements, and what fails goes to a queue of its own.

    python examples/work_queue_pika.py worker [URL]     run as many of these as there is work for
    python examples/work_queue_pika.py send "three dots..." [URL]

Each worker has one task at a time (prefetch 1), so a slow task keeps no others waiting behind it. A task is
acknowledged when it is done; if its worker dies, another one gets it. A task that fails is rejected and lands in
`pika.tasks.failed`.
"""

from __future__ import annotations

import sys
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

QUEUE, FAILED = "pika.tasks", "pika.tasks.failed"
LOCAL = "amqp://guest:guest@localhost:5672/"


def open_channel(url: str) -> tuple[pika.BlockingConnection, BlockingChannel]:
    """A channel on which both queues are declared; whoever comes first makes them."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.queue_declare(FAILED, durable=True)
    to_failed = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": FAILED}
    channel.queue_declare(QUEUE, durable=True, arguments=to_failed)
    return connection, channel


def send(task: str, url: str) -> None:
    """Put a task into the queue; when this returns, the broker has it."""
    connection, channel = open_channel(url)
    channel.confirm_delivery()
    channel.basic_publish("", QUEUE, task.encode(), pika.BasicProperties(delivery_mode=2))
    connection.close()


def work(url: str) -> None:
    """Take tasks until interrupted. A task's work is to print itself; one without a dot in it fails."""
    connection, channel = open_channel(url)
    channel.basic_qos(prefetch_count=1)

    def on_task(channel: BlockingChannel, method: Any, _: pika.BasicProperties, body: bytes) -> None:
        if b"." in body:
            print("done:", body.decode(), flush=True)
            channel.basic_ack(method.delivery_tag)
        else:
            print("failed:", body.decode(), flush=True)
            channel.basic_reject(method.delivery_tag, requeue=False)

    channel.basic_consume(QUEUE, on_task)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        connection.close()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["worker", *rest]:
            work(rest[0] if rest else LOCAL)
        case ["send", task, *rest]:
            send(task, rest[0] if rest else LOCAL)
        case _:
            sys.exit(__doc__)
