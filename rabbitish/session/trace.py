"""RabbitMQ's firehose: copies of what is published and delivered in a virtual host, to its exchange amq.rabbitmq.trace.

A virtual host that is traced has a `Tracer`, which its channels know, and publishes take the generic path then. What a
copy says of its message stands in its headers, as in RabbitMQ (rabbit_trace). Copies of deliveries are published a bit
later: a queue that is handing out must not get more meanwhile. What waits for that counts as memory in use, and a
consumer whose copies wait gets no more before they are published. Copies are not traced themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, NamedTuple

from rabbitish.core.arguments import ROUTING_KEY_BYTES_MAX
from rabbitish.core.exchange import Target
from rabbitish.core.holdings import MESSAGE_OVERHEAD_BYTES
from rabbitish.core.message import Address, Traits
from rabbitish.core.vhost import Vhost
from rabbitish.session.content import WireMessage, WireStamp, address_suffix, framed_content
from rabbitish.values import Table, Value
from rabbitish.wire.properties import Properties

if TYPE_CHECKING:
    from rabbitish.session.channel import Channel
    from rabbitish.session.consumer import ChannelConsumer

TRACE_EXCHANGE = "amq.rabbitmq.trace"

# Headers of a copy that are longer are left out: they must fit a frame of whoever watches.
_HEADERS_BYTES_MAX = 64 * 1024
_TRANSIENT = Traits(False, 0, None)

# Copies that are made at a stretch: some milliseconds.
_COPIES_AT_ONCE = 64
_BYTES_AT_ONCE = 1024 * 1024
# While as much as this waits no consumer in the virtual host gets anything.
_MOST_WAITING_BYTES = 8 * 1024 * 1024


class _Waiting(NamedTuple):
    """A delivery that was not copied yet."""

    channel: Channel
    key: str
    about: Table
    message: WireMessage

    @property
    def weight(self) -> int:
        return self.message.size + MESSAGE_OVERHEAD_BYTES


class Tracer:
    """Makes the copies of one virtual host."""

    __slots__ = ("_held", "_served", "_vhost", "_waiting", "_waiting_bytes")

    def __init__(self, vhost: Vhost) -> None:
        self._vhost = vhost
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._served: set[ChannelConsumer] = set()  # whose copies wait
        self._held: dict[ChannelConsumer, None] = {}  # who asked for more meanwhile

    def published(self, channel: Channel, message: WireMessage, targets: Sequence[Target]) -> None:
        """A message has been published and goes to these queues."""
        key = _shortened(f"publish.{message.address.exchange}")
        if self._watched(key) and not _is_copy(message):
            queues: list[Value] = [target.name for target in targets]
            self._copy(channel, key, {**_who(channel), "routed_queues": queues}, message, channel.session.now)

    def delivered(
        self,
        channel: Channel,
        queue: str,
        messages: Sequence[WireMessage],
        consumer: ChannelConsumer | None,
        *,
        redelivered: bool,
    ) -> None:
        """These have been sent to the peer, to this consumer or for basic.get."""
        key = _shortened(f"deliver.{queue}")
        if not self._watched(key):
            return
        about: Table = {"redelivered": int(redelivered), **_who(channel)}
        found = [_Waiting(channel, key, about, message) for message in messages if not _is_copy(message)]
        if found:
            if not self._waiting:
                self._vhost.chores.add(self._copy_waiting())
            self._waiting += found
            self._count(sum([each.weight for each in found]))
            if consumer is not None:
                self._served.add(consumer)

    def holds(self, consumer: ChannelConsumer) -> bool:
        """Whether it must wait for copies, after which it is told to `resume`."""
        if consumer in self._served or self.full:
            self._held[consumer] = None
            return True
        return False

    def _watched(self, key: str) -> bool:
        """Whether anybody could see a copy with this key: where nobody can, nothing is done."""
        exchange = self._vhost.exchanges[TRACE_EXCHANGE]
        return bool(exchange.alternate or exchange.matches(key, {}))

    @property
    def full(self) -> bool:
        """Whether so much waits that nothing should be delivered."""
        return self._waiting_bytes >= _MOST_WAITING_BYTES

    def make_room(self) -> Iterator[None]:
        """Takes steps until that is over."""
        while self.full:
            yield

    def _copy_waiting(self) -> Iterator[None]:
        count = size = 0
        try:
            while self._waiting:
                each = self._waiting.popleft()
                self._count(-each.weight)
                self._copy(*each, each.channel.session.broker.now)
                count, size = count + 1, size + each.message.size
                if count >= _COPIES_AT_ONCE or size >= _BYTES_AT_ONCE:
                    count = size = 0
                    yield
        finally:  # and be it a fault of ours: nobody may wait for ever
            self._count(-self._waiting_bytes)
            self._waiting.clear()
            served, self._served = self._served, set()
            held, self._held = self._held, {}
            for consumer in sorted(held, key=served.__contains__):  # those first that have had nothing
                consumer.resume()

    def _count(self, size: int) -> None:
        self._waiting_bytes += size
        self._vhost.usage.bytes += size

    def _copy(self, channel: Channel, key: str, about: Table, message: WireMessage, now: int) -> None:
        session, vhost = channel.session, self._vhost
        address = Address(TRACE_EXCHANGE, key)
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
        stamp = WireStamp(address, _TRANSIENT, message.size, channel.number, address_suffix(address))
        body = [message.body()] if message.size else []
        content = framed_content(channel.number, raw, message.size, body, session.frame_max)
        for target in targets:
            target.enqueue(WireMessage(stamp, content), now)


def _who(channel: Channel) -> Table:
    session = channel.session
    return {
        "vhost": session.vhost.name,
        "connection": session.peer.name,
        "channel": channel.number,
        "user": session.user.name,
    }


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
