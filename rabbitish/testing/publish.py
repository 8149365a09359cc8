"""A message from the test itself, put into queues as if a client had published it.

It takes the same steps as session/publish.py without a session: nobody is there who could be refused anything.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rabbitish.core.message import Address
from rabbitish.session.content import (
    WireMessage,
    WireStamp,
    address_suffix,
    copy_keys,
    decoded_headers,
    framed_content,
    parse_expiration,
)
from rabbitish.testing.bench import Bench
from rabbitish.wire.properties import Properties

_CHANNEL = 1


def properties_of(given: dict[str, Any]) -> Properties:
    """Properties by their names. TypeError: there is no such property."""
    known = [field.name for field in fields(Properties)]
    for name in given:
        if name not in known:
            raise TypeError(f"there is no property {name!r}, only {', '.join(known)}")
    return Properties(**given)


def publish(
    bench: Bench, vhost_name: str, exchange_name: str, routing_key: str, body: bytes, properties: Properties
) -> int:
    """Publish; how many queues took the message.

    LookupError: there is no such virtual host or exchange. ValueError, TypeError, AMQPError: such properties cannot be.
    """
    vhost, node = bench.vhost(vhost_name), bench.node
    exchange = vhost.exchanges.get(exchange_name)
    if exchange is None:
        raise LookupError(f"there is no exchange {exchange_name!r} in {vhost_name!r}, only {sorted(vhost.exchanges)}")
    raw = properties.encode()
    summary = node.hub.properties.summary(raw)
    if properties.expiration is not None:
        parse_expiration(properties.expiration)
    headers = decoded_headers(raw, summary.digest)
    address = Address(exchange_name, routing_key, copy_keys(headers))
    stamp = WireStamp(address, summary.traits, len(body), _CHANNEL, address_suffix(address))
    frames = framed_content(_CHANNEL, raw, len(body), [body] if body else [], node.settings.frame_max_bytes)
    message = WireMessage(stamp, frames)
    targets = vhost.route(exchange, address.routing_keys, headers)
    now = node.now()
    vhost.record_published(targets, message, now)
    took = sum([target.enqueue(message, now) for target in targets])
    bench.settle()
    return took
