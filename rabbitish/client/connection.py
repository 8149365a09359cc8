"""`connect`: a block in which there is a connection, and what is needed to have one again when it was lost.

The nursery of the block holds the connection's tasks, so none outlives it; they never raise for what the broker or the
network does, so a program's own exception leaves the block as it is. With `reconnect` a lost connection comes back:
hosts are tried in turn with a growing, jittered pause, then everything is declared, opened and consumed anew, and only
then whoever waits goes on.
"""

from __future__ import annotations

import contextlib
import logging
import random
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Unpack

import trio

from rabbitish.client.channel import Channel
from rabbitish.client.consumer import Consumer
from rabbitish.client.errors import (
    AuthenticationFailed,
    ChannelClosed,
    ClientError,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    ProtocolError,
    ResourceLocked,
)
from rabbitish.client.link import Link
from rabbitish.client.message import IncomingMessage
from rabbitish.client.protocol.connection import Protocol
from rabbitish.client.protocol.content import Serialiser, Serialisers
from rabbitish.client.protocol.topology import Topology
from rabbitish.client.protocol.uri import Parameters, parse_uri
from rabbitish.client.queue import Queue
from rabbitish.client.topics import SubscribeOptions
from rabbitish.client.transport import open_transport
from rabbitish.client.waiting import background, wait
from rabbitish.values import Table
from rabbitish.wire import methods

_log = logging.getLogger("rabbitish.client")
_CLOSE_SECONDS = 5.0


@dataclass(frozen=True)
class Reconnect:
    """How a lost connection comes back.

    After each round through all hosts a pause: `pause` seconds at first, `factor` times as long each time up to
    `longest`, of which a random part of up to `jitter` (0 to 1) is cut off, so that many clients do not come at once.
    `attempts`: rounds before it gives up, None for never. `publishes`: what becomes of messages that were not confirmed
    when the connection was lost: "retry" publishes them once more (they may then be there twice), "raise" raises
    PublishUnconfirmed to whoever published them. `initially`: be as patient with the first connection.
    """

    pause: float = 0.5
    factor: float = 2.0
    longest: float = 30.0
    jitter: float = 0.5
    attempts: int | None = None
    publishes: Literal["retry", "raise"] = "retry"
    initially: bool = False

    def pauses(self) -> Iterable[float]:
        """The pause before each attempt but the first."""
        pause = self.pause
        count = 1
        while self.attempts is None or count < self.attempts:
            yield pause * (1 - self.jitter * random.random())
            pause = min(pause * self.factor, self.longest)
            count += 1


class Connection:
    """A connection to a broker. Made by `connect`, and closed at the end of its block.

    Any number of tasks may use it. Without `reconnect` it is over when it is lost, and everything that waits for it
    raises ConnectionLost; with it, what waits goes on when it is back.
    """

    def __init__(
        self,
        hosts: Sequence[Parameters],
        reconnect: Reconnect | None,
        ssl_context: ssl.SSLContext | None,
        properties: Table,
        serialisers: Serialisers,
    ) -> None:
        self.serialisers = serialisers
        self.reconnect = reconnect
        self.connections = 0
        """How many connections there have been: one more than it came back."""
        self.topology = Topology()
        self.channels: list[Channel] = []
        self.change = trio.lowlevel.ParkingLot()
        """Whoever waits for the connection's state to be another."""
        self._hosts = list(hosts)
        self._ssl_context = ssl_context
        self._properties = properties
        self._link: Link | None = None
        self._error: ClientError | None = None
        self._closing = False
        self._nursery: trio.Nursery | None = None
        self._over = trio.Event()

    # ---- what a program sees

    def channel(self, *, confirms: bool = True) -> contextlib.AbstractAsyncContextManager[Channel]:
        """A block with a channel. `confirms`: `publish` waits for the broker to confirm; else it only sends.

        ConnectionClosed: the connection is gone, or has no free channel.
        """
        return Channel.open(self, confirms=confirms)

    @contextlib.asynccontextmanager
    async def subscribe(self, *routing_keys: str, **options: Unpack[SubscribeOptions]) -> AsyncIterator[Consumer]:
        """`Channel.subscribe`, on a channel of its own: a block with the messages for these patterns."""
        async with self.channel() as channel, channel.subscribe(*routing_keys, **options) as messages:
            yield messages

    @property
    def blocked(self) -> str | None:
        """Why the broker takes no publishes for now ("low on memory"); None: it does. Publishing waits until then."""
        return None if self._link is None else self._link.protocol.blocked

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now, with everything restored."""
        return self._link is not None

    @property
    def closed(self) -> ClientError | None:
        """Why there is no connection and will not be one again; None: there is, or it is coming back."""
        return self._error

    @property
    def server_properties(self) -> Table:
        """What the broker says about itself. ConnectionClosed: there is none right now."""
        return self.protocol().server_properties

    async def wait_unblocked(self) -> None:
        """Wait until the broker takes publishes. ConnectionClosed: there is no connection any more."""
        while self.blocked is not None or self._link is None:
            await self.wait_change()
        await trio.lowlevel.checkpoint()

    async def wait_closed(self) -> ClientError:
        """Wait until the connection is gone for good; why."""
        await self._over.wait()
        assert self._error is not None
        return self._error

    async def update_secret(self, new_secret: str, reason: str = "") -> None:
        """Give the broker a fresh token in place of the one that is about to expire; later connections use it too.

        `reason` is for the broker's log. ConnectionClosed: there is no connection right now.
        """
        await wait(self.protocol().update_secret(new_secret, reason))
        self._hosts = [replace(host, password=new_secret) if host.password else host for host in self._hosts]

    async def aclose(self) -> None:
        """Close it, as the end of the block does, and wait until it is. Whoever still uses it gets ConnectionClosed."""
        self._closing = True
        if self._link is None:
            self._give_up(ConnectionClosed("the program closed the connection", 200))
        else:
            self._link.protocol.close()
        await self._over.wait()

    # ---- for the other modules of the front

    def protocol(self) -> Protocol:
        """What there is right now. ConnectionClosed: there is nothing."""
        if self._link is None:
            raise self._error.again() if self._error is not None else ConnectionLost("there is no connection right now")
        return self._link.protocol

    def comes_back(self, error: ClientError) -> bool:
        """Whether what ended with this error will be there again."""
        return (
            self.reconnect is not None
            and isinstance(error, ConnectionLost)
            and self._error is None
            and not self._closing
        )

    async def wait_change(self) -> None:
        """Wait until something about the connection is different. ConnectionClosed: it is gone for good."""
        if self._error is not None:
            raise self._error.again()
        await self.change.park()

    # ---- its life

    async def start(self, nursery: trio.Nursery) -> None:
        """Connect, trying each host once, or as `reconnect` says. ConnectFailed, AuthenticationFailed: no."""
        self._nursery = nursery
        patient = self.reconnect is not None and self.reconnect.initially
        link = await self._attempt(self._hosts) if not patient else await self._attempts(self._hosts)
        self._up(link)
        nursery.start_soon(self._stay, link)

    async def stop(self) -> None:
        """Say goodbye, for some seconds at the most, and end."""
        self._closing = True
        link = self._link
        if link is not None:
            # The link is shielded too: what was acknowledged goes out although the program was cancelled.
            with trio.CancelScope(shield=True):
                link.protocol.close()
                with trio.move_on_after(_CLOSE_SECONDS):
                    await link.over.wait()
                link.protocol.end(ConnectionLost("the broker did not say goodbye"))
                await link.over.wait()
        self._give_up(ConnectionClosed("the program closed the connection", 200))

    def _up(self, link: Link) -> None:
        self._link = link
        self.connections += 1
        self._changed()

    def _changed(self) -> None:
        if self.change:
            self.change.unpark_all()

    def _give_up(self, error: ClientError) -> None:
        if self._error is None:
            self._error = error
            for channel in self.channels:
                channel.lose(error)
        self._link = None
        self._over.set()
        self._changed()

    @trio.lowlevel.enable_ki_protection
    async def _stay(self, link: Link) -> None:
        """Wait for the end of a connection, and for the next one."""
        while True:
            await link.over.wait()
            error = link.protocol.error
            assert error is not None
            self._link = None
            if not self.comes_back(error):
                self._give_up(error)
                return
            _log.warning("connection to %s lost: %s", link.protocol.parameters.address, error)
            hosts = random.sample(self._hosts, len(self._hosts))
            try:
                link = await self._attempts(hosts)
            except ClientError as final:
                self._give_up(final)
                return
            if self._closing:
                link.protocol.close()
            self._up(link)
            _log.info("connected to %s again", link.protocol.parameters.address)

    async def _attempts(self, hosts: Sequence[Parameters]) -> Link:
        """Try until it works. ClientError: it never will, or the attempts are used up."""
        assert self.reconnect is not None
        pauses = iter(self.reconnect.pauses())
        while True:
            try:
                link = await self._attempt(hosts)
                try:
                    await self._restore(link.protocol)
                    return link
                except BaseException as error:
                    link.protocol.end(ConnectionLost(f"not restored: {error}"))
                    raise
            except (ConnectFailed, ConnectionLost, ResourceLocked) as error:
                pause = next(pauses, None)
                if pause is None:
                    raise
                _log.warning("%s; next attempt in %.1f s", error, pause)
                await trio.sleep(pause)

    async def _attempt(self, hosts: Sequence[Parameters]) -> Link:
        """One round through the hosts. ConnectFailed: none took us; AuthenticationFailed: one did not want to."""
        failures: list[str] = []
        for host in hosts:
            try:
                with trio.fail_after(host.connection_timeout):
                    return await self._open(host)
            except trio.TooSlowError:
                failures.append(f"{host.address}: no answer within {host.connection_timeout:g} seconds")
            except AuthenticationFailed:
                raise
            except (OSError, ConnectionClosed, ProtocolError) as error:  # one that is just starting says many things
                failures.append(f"{host.address}: {error}")
        raise ConnectFailed("; ".join(failures))

    async def _open(self, host: Parameters) -> Link:
        assert self._nursery is not None
        transport = await open_transport(host, self._ssl_context)
        protocol = Protocol(host, self._properties, IncomingMessage, self.serialisers)
        link = Link(transport, protocol, self._changed)
        self._nursery.start_soon(link.run)
        try:
            await link.log_in()
        except BaseException:
            protocol.end(ConnectionLost("not opened"))
            raise
        return link

    async def _restore(self, protocol: Protocol) -> None:
        """Declare, open, consume and publish again what there was. ClientError: that is not possible."""
        if self.connections:
            topology = self.topology
            scratch = protocol.channel()
            scratch.open(confirms=False)
            declared = [(name, scratch.request(*_with_answer(method))) for name, method in topology.declarations()]
            for name, promise in declared:
                answer = await wait(promise)
                if isinstance(answer, methods.QueueDeclareOk) and answer.queue != name:
                    topology.rename(name, answer.queue)
                    Queue.renamed(self, name, answer.queue)
            for bound in [scratch.request(*_with_answer(method)) for method in topology.bindings.values()]:
                await wait(bound)
            await wait(scratch.close())
        for channel in list(self.channels):
            try:
                await channel.restore(protocol)
            except ResourceLocked:
                raise
            except ChannelClosed as error:
                channel.lose(error)


_ANSWERS: dict[type[methods.Method], type[methods.Method]] = {
    methods.ExchangeDeclare: methods.ExchangeDeclareOk,
    methods.QueueDeclare: methods.QueueDeclareOk,
    methods.QueueBind: methods.QueueBindOk,
    methods.ExchangeBind: methods.ExchangeBindOk,
}


def _with_answer(method: methods.Method) -> tuple[methods.Method, type[methods.Method]]:
    return method, _ANSWERS[type(method)]


@contextlib.asynccontextmanager
async def connect(
    uri: str | Parameters | Sequence[str | Parameters] = "amqp://",
    *,
    reconnect: Reconnect | bool | None = None,
    ssl_context: ssl.SSLContext | None = None,
    connection_name: str | None = None,
    client_properties: Table | None = None,
    serialisers: Iterable[Serialiser] = (),
) -> AsyncIterator[Connection]:
    """A block with a connection to the broker at a URI, or to the first of several that lets us in.

    `reconnect`: come back when it is lost, True for the usual way; without it whoever uses the connection gets
    ConnectionLost. `ssl_context` is used for amqps instead of what the URI says. `connection_name` is what the broker's
    tools show. `serialisers`: the program's own; the first is for values that are neither bytes nor text.

    URIError; ConnectFailed: no host answered; AuthenticationFailed: the user or the virtual host is refused.
    """
    given = [uri] if isinstance(uri, str | Parameters) else list(uri)
    hosts = [parse_uri(each) if isinstance(each, str) else each for each in given]
    if not hosts:
        raise ValueError("no host to connect to")
    properties = dict(client_properties or {})
    if connection_name is not None:
        properties["connection_name"] = connection_name
    if isinstance(reconnect, bool):
        reconnect = Reconnect() if reconnect else None
    connection = Connection(hosts, reconnect, ssl_context, properties, Serialisers(serialisers))
    async with background() as nursery:
        try:
            await connection.start(nursery)
            yield connection
        finally:
            await connection.stop()
