"""A client whose bytes go through a Gateway, to a leader that may be replaced by another at any byte.

`carried(world)` is a client that has shaken hands. Everything flows by itself unless `slow` is set: then bytes wait
between gateway and leader, both ways, for `up` and `down`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter

from rabbitish.gateway.passport import decode_passport
from rabbitish.gateway.session import Gateway
from rabbitish.session.carried import bring
from rabbitish.session.connection import Session
from rabbitish.session.resuming import resume
from rabbitish.wire import methods
from tests.session.client import Client
from tests.session.harness import Journal, Log, Peer, World

PEER = Peer("carried", True, "127.0.0.1")
MARK = b"carried session."


class Carried(Client):
    """See the module."""

    def __init__(self, world: World, *, most: int = 1 << 26, mark: bytes = MARK) -> None:
        super().__init__(world, self._new_session(world))
        world.clients[self.session] = self
        self.gateway = Gateway(most=most, frame_min=world.settings.frame_min_bytes, mark=mark)
        bring(self.session, mark)
        self.slow = False
        self.attached = True
        self.sent_up = bytearray()  # all that this leader was sent
        self._said = b""  # by the client, and not yet heard
        self.waiting_up = b""
        self.waiting_down = b""

    @staticmethod
    def _new_session(world: World) -> Session:
        return Session(world.hub, PEER, Log(world.records), world.now)

    # ---- from the client

    def raw(self, data: bytes) -> None:
        self._said += data
        self.feed()

    def feed(self) -> bool:
        fed = False
        if self._said and self.attached and self.gateway.hears_client:
            data, self._said = self._said, b""
            self.gateway.from_client(data)
            fed = True
        self.waiting_up += self.gateway.take_for_leader()
        if not self.slow and self.waiting_up and self.attached:
            fed = self.up(len(self.waiting_up)) or fed
        self._tell()
        return fed

    def up(self, count: int) -> bool:
        """Let the leader hear so many bytes."""
        session = self.session
        if not session.reading or session.ended or not count:
            return False
        data, self.waiting_up = self.waiting_up[:count], self.waiting_up[count:]
        if data:
            self.sent_up += data
            session.receive_data(data, self.world.now)
        return bool(data)

    # ---- from the leader

    def collect(self) -> None:
        outbox = self.session.outbox
        if outbox.parts and outbox.held_until <= self.session.hub.durable:
            data = outbox.take()
            outbox.sent(len(data), self.world.now)
            self.waiting_down += data
        if not self.slow:
            self.down(len(self.waiting_down))
        self.hung_up = self.session.ended

    def down(self, count: int) -> None:
        """Let the gateway hear so many bytes."""
        data, self.waiting_down = self.waiting_down[:count], self.waiting_down[count:]
        if data:
            self.gateway.from_leader(data)
        self._tell()

    def _tell(self) -> None:
        text = self.gateway.take_for_client()
        if text:
            self.received += text
            self._take(text)

    # ---- another leader

    def lose_leader(self) -> None:
        """The leader is gone, with what was under way to it and from it."""
        self.waiting_up = self.waiting_down = b""
        self.attached = False
        self.gateway.detach()
        self._tell()
        self.world.clients.pop(self.session, None)

    def go_on(self, world: World) -> None:
        """Another one takes the session over. ConnectionFailure: it does not."""
        passport = decode_passport(self.gateway.passport())
        self.world, self.session = world, self._new_session(world)
        world.clients[self.session] = self
        resume(self.session, passport)
        self.attached = True
        self.sent_up.clear()
        self.gateway.attach()
        self.feed()
        world.settle()

    def move(self, world: World) -> None:
        """Both."""
        self.lose_leader()
        self.go_on(world)


def carried(world: World, *channels: int, **handshake: object) -> Carried:
    """A client with an open connection and open channels (channel 1 when none is named)."""
    client = Carried(world)
    client.handshake(**handshake)  # type: ignore[arg-type]
    for channel in channels or (1,):
        client.open(channel)
    return client


def successor(old: World, *, journal: bool = False, up_to: int | None = None, synced: bool = True) -> World:
    """The next leader: what is durable in `old`, whose clients are gone. `up_to`: so far its journal got.

    Not `synced`: it is not known yet whether all replicas have what was not safe before.
    """
    new = World()
    for session in list(old.hub.sessions):
        session.receive_eof(old.now)
    old.broker.settle(old.now)
    for name, record in old.access.roster.vhosts.items():
        if name not in new.broker.vhosts:
            new.add_vhost(record.name)
    if journal:
        new.keep_journal()
    helper = new.client()
    told: list[tuple[int, Callable[[], None]]] = []
    for vhost in old.broker.vhosts.values():
        for exchange in vhost.exchanges.values():
            if exchange.durable and not exchange.name.startswith("amq.") and exchange.name:
                new.broker.vhosts[vhost.name].add_exchange(
                    exchange.name,
                    exchange.type,
                    durable=True,
                    auto_delete=exchange.auto_delete,
                    internal=exchange.internal,
                    arguments=exchange.arguments,
                )
        for queue in vhost.queues.values():
            if queue.durable:
                new.broker.vhosts[vhost.name].declare_queue(
                    queue.name,
                    durable=True,
                    exclusive=False,
                    auto_delete=queue.auto_delete,
                    arguments=queue.arguments,
                    owner=None,
                    now=new.now,
                )
                for message in queue:
                    body = b"".join(bodies_in(message.content))  # type: ignore[attr-defined]
                    if message.lsn or not journal:
                        told.append((message.lsn, partial(helper.publish, queue.name, body, delivery_mode=2)))
    if journal:
        told += [(at, partial(_recorder(new).sent, *sent)) for at, *sent in _recorder(old).sends]
    safe = 0
    for at, tell in sorted(told, key=itemgetter(0)):
        if up_to is None or at <= up_to:
            tell()
            if journal and at <= old.hub.durable:
                safe = _recorder(new).position
    new.settle()
    if journal:
        new.synced(None if synced else safe)
    helper.hang_up()
    return new


def _recorder(world: World) -> Journal:
    recorder = world.broker.recorder
    assert isinstance(recorder, Journal)
    return recorder


def bodies_in(content: bytes) -> list[bytes]:
    """The bodies in content frames."""
    pieces, at = [], 0
    while at < len(content):
        size = int.from_bytes(content[at + 3 : at + 7], "big")
        if content[at] == 3:
            pieces.append(content[at + 7 : at + 7 + size])
        at += size + 8
    return pieces


def confirming(world: World, *channels: int) -> Carried:
    """A client with a durable queue `q` and channels in confirm mode."""
    client = carried(world, *channels)
    for channel in channels or (1,):
        assert client.ask(methods.ConfirmSelect(), channel) == methods.ConfirmSelectOk()
    client.declare("q", durable=True)
    return client


def closing(world: World) -> Carried:
    """A client that closed its channel while the leader did, of which it has just heard; what it says waits."""
    client = carried(world)
    client.slow = True
    client.send(methods.QueueDeclare(queue="missing", passive=True))
    client.up(10_000)
    world.settle()
    client.collect()
    client.send(methods.ChannelClose())
    client.down(10_000)
    (said,) = client.answers()
    assert isinstance(said.method, methods.ChannelClose)
    return client


def drained(world: World, queue: str) -> list[bytes]:
    """What a queue holds, which is empty then."""
    taker = world.client()
    bodies = taker.drain(queue)
    taker.hang_up()
    return bodies


def frames(data: bytes) -> list[bytes]:
    """Bytes, frame by frame."""
    found, at = [], 0
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at + 3 : at + 7], "big")
        found.append(data[at:end])
        at = end
    return found


def deliveries(client: Carried) -> list[tuple[str, int, bytes]]:
    """What was delivered since the last time."""
    return [
        (said.method.consumer_tag, said.method.delivery_tag, said.body)
        for said in client.answers()
        if isinstance(said.method, methods.BasicDeliver)
    ]
