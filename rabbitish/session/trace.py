"""RabbitMQ's firehose: copies of what is published and delivered in a virtual host, to its exchange amq.rabbitmq.trace.

A channel has a `Tracer` while its virtual host is traced, and none otherwise; publishes take the generic path then.
What a copy says of its message stands in its headers, as in RabbitMQ (rabbit_trace). Copies of deliveries are published
a little later: a queue that is handing out must not get more meanwhile. Copies are not traced themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from rabbitish.core.arguments import ROUTING_KEY_BYTES_MAX
from rabbitish.core.exchange import Target
from rabbitish.core.message import Address, Traits
from rabbitish.session.content import WireMessage, WireStamp, address_suffix, framed_content
from rabbitish.values import Table, Value
from rabbitish.wire.properties import Properties

if TYPE_CHECKING:
    from rabbitish.session.channel import Channel

TRACE_EXCHANGE = "amq.rabbitmq.trace"

# Headers of a copy that are longer are left out: they must fit a frame of whoever watches.
_HEADERS_BYTES_MAX = 64 * 1024
_TRANSIENT = Traits(False, 0, None)


class Tracer:
    """Makes the copies of one channel."""

    __slots__ = ("_channel", "_later")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._later: list[tuple[str, Table, WireMessage]] = []

    def published(self, message: WireMessage, targets: Sequence[Target]) -> None:
        """A message has been published and goes to these queues."""
        if self._wanted(message):
            queues: list[Value] = [target.name for target in targets]
            about: Table = {**self._who(), "routed_queues": queues}
            self._copy(f"publish.{message.address.exchange}", about, message, self._channel.session.now)

    def delivered(self, queue: str, messages: Sequence[WireMessage], *, redelivered: bool) -> None:
        """These have been sent to the peer."""
        about: Table = {"redelivered": int(redelivered), **self._who()}
        found = [(f"deliver.{queue}", about, message) for message in messages if self._wanted(message)]
        if found and not self._later:
            self._channel.session.vhost.chores.add(self._copy_later())
        self._later += found

    def _wanted(self, message: WireMessage) -> bool:
        return self._channel.session.vhost.exchanges[TRACE_EXCHANGE].bound and not _is_copy(message)

    def _copy_later(self) -> Iterator[None]:
        while self._later:
            waiting, self._later = self._later, []
            for number, copy in enumerate(waiting):
                self._copy(*copy, self._channel.session.broker.now)
                if number % 64 == 63:
                    yield

    def _who(self) -> Table:
        session = self._channel.session
        return {
            "vhost": session.vhost.name,
            "connection": session.peer.name,
            "channel": self._channel.number,
            "user": session.user.name,
        }

    def _copy(self, key: str, about: Table, message: WireMessage, now: int) -> None:
        session = self._channel.session
        vhost = session.vhost
        address = Address(TRACE_EXCHANGE, _shortened(key))
        headers = {**_described(message), "node": session.hub.cluster_name, **about}
        targets = vhost.route(vhost.exchanges[TRACE_EXCHANGE], (address.routing_key,), headers)
        if not targets:
            return
        try:
            raw = Properties(headers=headers).encode()
        except ValueError:  # headers in it that are nested as deeply as can be
            properties = headers["properties"]
            assert isinstance(properties, dict)
            properties.pop("headers", None)
            raw = Properties(headers=headers).encode()
        if len(raw) > _HEADERS_BYTES_MAX:  # more than fits a frame of whoever watches
            about = {**about, "routed_queues": []} if "routed_queues" in about else about
            raw = Properties(headers={**headers, **about, "properties": {}}).encode()
        stamp = WireStamp(address, _TRANSIENT, message.size, self._channel.number, address_suffix(address))
        body = [message.body()] if message.size else []
        content = framed_content(self._channel.number, raw, message.size, body, session.frame_max)
        for target in targets:
            target.enqueue(WireMessage(stamp, content), now)


def _is_copy(message: WireMessage) -> bool:
    """Whether it is a copy, be it one that died meanwhile."""
    if message.address.exchange == TRACE_EXCHANGE:
        return True
    deaths = message.headers().get("x-death")
    return isinstance(deaths, list) and any(
        isinstance(death, dict) and death.get("exchange") == TRACE_EXCHANGE for death in deaths
    )


def _described(message: WireMessage) -> Table:
    properties = message.properties()
    found: Table = {}
    for each in fields(properties):
        value: Value = getattr(properties, each.name)
        if value is not None:
            found[each.name] = int(value) if isinstance(value, int) else value
    keys: list[Value] = list(message.address.routing_keys)
    return {"exchange_name": message.address.exchange, "routing_keys": keys, "properties": found}


def _shortened(key: str) -> str:
    """As much of a routing key as one may have."""
    return key.encode("utf-8", "surrogateescape")[:ROUTING_KEY_BYTES_MAX].decode("utf-8", "surrogateescape")
