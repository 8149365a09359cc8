"""Hello, world: publish one message with pika and get it back. Needs a broker on localhost and `pip install pika`.

rabbitish serve --ephemeral &
python examples/hello_pika.py [amqp://guest:guest@localhost:5672/]
"""

from __future__ import annotations

import sys

import pika


def main(url: str) -> None:
    """Declare a queue, publish to it, and consume until the message is there."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.queue_declare("greetings", durable=True)
    channel.confirm_delivery()
    channel.basic_publish("", "greetings", b"Hello, world!", pika.BasicProperties(delivery_mode=2))
    for method, _, body in channel.consume("greetings"):
        print(body.decode())
        channel.basic_ack(method.delivery_tag)
        break
    channel.cancel()
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "amqp://guest:guest@localhost:5672/")
