"""One AMQP connection, from its first byte to its last: the seam between sockets and the broker.

    receive_data(data, now)    bytes came          outbox.take(), outbox.sent(n, now)   bytes go

    receive_eof(now)           the peer is gone    reading, ended                       what becomes of the socket

Nothing that a peer sends raises out of `receive_data`: it queues the right close, and from then on looks only for the
peer's agreement. Any other exception is a bug of ours: it is logged, answered with 541, and costs only this connection.
The server learns of anything to do (bytes to send, a socket to close) through `Hub.touched`.
"""

from __future__ import annotations

from collections.abc import Iterator

from rabbitish.core.access.logins import Attempt
from rabbitish.core.access.records import User
from rabbitish.core.message import Traits
from rabbitish.core.vhost import Vhost
from rabbitish.errors import AMQPError, ChannelError, ConnectionFailure, ReplyCode
from rabbitish.session import basic, carried, handshake, modes, topology  # noqa: F401  (they fill the table of methods)
from rabbitish.session.channel import Channel
from rabbitish.session.channel0 import RUNNING, decode_on_0, unexpected
from rabbitish.session.fastlane import Template, take_fast, take_only_ack
from rabbitish.session.hub import Hub, Log, Peer
from rabbitish.session.outbox import Outbox
from rabbitish.session.patience import Patience
from rabbitish.session.publish import Form, Route, RouteMemory, find_route
from rabbitish.session.shapes import Kind, Shape
from rabbitish.values import Table
from rabbitish.wire import methods
from rabbitish.wire.codec import IDS
from rabbitish.wire.frames import (
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    PROTOCOL_HEADER,
    FrameParser,
    Opening,
    classify_opening,
)
from rabbitish.wire.method import Method

# Of the queues that a message goes to so many are looked at.
_LOOKED_AT = 8


class Session:
    """One peer."""

    def __init__(self, hub: Hub, peer: Peer, log: Log, now: int, *, peer_certificate_name: str | None = None) -> None:
        self.hub = hub
        self.broker, self.access, self.settings, self.properties = hub.broker, hub.access, hub.settings, hub.properties
        self.peer = peer
        # The user that the peer's TLS certificate stands for; empty: it has shown none that does. None: certificates
        # are no login where it came in.
        self.peer_certificate_name = peer_certificate_name
        self.log = log
        self.now = now  # of the call that is being handled
        # header, starting, verifying (a password), tuning, opening, running, closing (we wait for close-ok), done (the
        # peer closed), closed
        self.state = "header"
        self.parser = FrameParser(self.settings.frame_min_bytes)
        self.outbox = Outbox(self.settings.outbox_bytes_high, self.settings.outbox_bytes_low, self.touch)
        self.reading = True  # whether the server should read from the socket
        self.paused = False  # whether it does not for the moment, for reasons of its own
        self.busy = False  # with something long that it asked for, before which it is not heard
        self.publishes = False  # whether the peer has ever published
        self.ended = False  # whether the server should close the socket, once everything is sent
        self.listed = False  # in hub.touched
        self.client_properties: Table = {}
        self.capabilities: Table = {}
        self.mechanism = ""
        self.login: Attempt | None = None  # while it is verified
        self.user = User("", frozenset())
        self.connected_at = now
        self.vhost: Vhost
        self.frame_max = self.settings.frame_min_bytes
        self.channel_max = 0
        self.heartbeat_ms = 0
        self.heard = now
        self.channels: dict[int, Channel] = {}
        self.mark = b""  # what its publishes are known by in the journal, if another node carries it
        self.restorable: frozenset[str] = frozenset()  # reserved names that may be declared; see resuming.py
        self._memory = RouteMemory(self.settings.route_cache_entries)
        self.routes, self.templates, self.shapes = self._memory.routes, self._memory.templates, self._memory.shapes
        self.template: Template | None = None  # the last one that a publish had
        self.kind: Kind | None = None  # of the last publish
        self.blocked = False  # it published under an alarm
        self._confirming: list[Channel] = []
        self._opening = b""
        self.arriving = 0  # bytes of bodies that were announced and are not all here
        hub.sessions.add(self)
        self.patience = Patience(self, now)

    # ---- bytes in

    def receive_data(self, data: bytes, now: int) -> None:
        """Take bytes from the peer. Never raises for what they are."""
        self.now = self.heard = self.broker.now = now
        if self.state == "closed":
            return
        try:
            if take_only_ack(self, data):
                return
            if self.state == "header":
                data = self._header(data)
            if data:
                self.parser.push(data)
            self._frames()
            if self._confirming:
                for channel in self._confirming:
                    channel.flush_confirms()
                self._confirming.clear()
        except Exception as error:  # noqa: BLE001 (ours, whatever it is: the broker lives on)
            self._own_fault(error)

    def _header(self, data: bytes) -> bytes:
        self._opening += data
        opening = classify_opening(self._opening)
        if opening is Opening.REJECTED:
            # A TLS handshake begins with these two bytes.
            hint = "TLS on a port without" if self._opening.startswith(b"\x16\x03") else None
            self.log.warning("wrong protocol header", received=self._opening[:8], hint=hint)
            self.outbox.write(PROTOCOL_HEADER)
            self.end("wrong protocol header")
        if opening is not Opening.ACCEPTED:
            return b""
        rest, self._opening = self._opening[8:], b""
        self.state = "starting"
        handshake.start(self)
        return rest

    def _frames(self) -> None:
        parser = self.parser
        while True:
            try:
                if self.state == "running":
                    take_fast(self)
                if self.busy:
                    return
                frame = parser.next_frame()
                if frame is None:
                    return
                self._frame(*frame)
            except (AMQPError, handshake.Silence) as error:
                self._refuse(error)
            if self.state in ("closed", "verifying"):
                return

    def wait_for_login(self, attempt: Attempt) -> None:
        """Hear nothing more before it is known whether a password is right."""
        self.login = attempt
        self.state = "verifying"
        self.reading = False

    def login_verified(self, attempt: Attempt, now: int, *, right: bool) -> None:
        """It is known now."""
        if self.state != "verifying":
            return
        self.now = self.broker.now = now
        self.state, self.reading, self.login = "starting", True, None
        attempt.right = right
        try:
            try:
                handshake.decide(self, attempt)
            except (AMQPError, handshake.Silence) as error:
                self._refuse(error)
            self._frames()  # what had come already
        except Exception as error:  # noqa: BLE001 (ours, whatever it is: the broker lives on)
            self._own_fault(error)
        self.touch()

    def _own_fault(self, error: Exception) -> None:
        self.log.exception("internal error", error)
        self._fail(ConnectionFailure(ReplyCode.INTERNAL_ERROR, ""))

    def _refuse(self, error: AMQPError | handshake.Silence) -> None:
        if isinstance(error, handshake.Silence):
            self.linger()
        elif self.state in ("starting", "tuning", "opening"):
            self.log.warning("handshake failed", error=error)
            handshake.refuse(self, error)
        else:
            self._fail(error)

    def _fail(self, error: AMQPError) -> None:
        if self.state in ("closing", "done", "closed"):
            if self.parser.lost:
                self.linger()
            return
        self.log.warning("connection closed for an error", error=error)
        self.close(error, self.settings.close_timeout_ms)

    def _frame(self, kind: int, number: int, payload: bytes) -> None:
        if number == 0:
            self._frame_on_0(kind, payload)
        elif self.state == "running":
            if kind == FRAME_HEARTBEAT:
                raise unexpected(kind, payload)
            channel = self.channels.get(number)
            if channel is None:
                channel = self._new_channel(number)
            try:
                channel.frame(kind, payload)
            except ChannelError as error:
                self.log.warning("channel closed for an error", channel=number, error=error)
                channel.close(error)
        elif self.state not in ("closing", "done"):
            raise unexpected(kind, payload)

    def _frame_on_0(self, kind: int, payload: bytes) -> None:
        if kind == FRAME_HEARTBEAT:
            return
        if self.state in ("closing", "done"):
            if kind == FRAME_METHOD:
                self._while_closing(payload)
            return
        if kind != FRAME_METHOD:
            raise unexpected(kind, payload)
        method = decode_on_0(payload)
        if self.state == "running":
            handler = RUNNING.get(type(method))
        else:
            handler = handshake.HANDLERS.get((self.state, type(method)))
        if handler is None:
            raise ConnectionFailure(ReplyCode.CHANNEL_ERROR, f"unexpected method in connection state {self.state}").of(
                method
            )
        try:
            handler(self, method)
        except AMQPError as error:
            raise error if error.code is ReplyCode.ACCESS_REFUSED else error.of(method) from None

    def _while_closing(self, payload: bytes) -> None:
        ids = IDS.unpack_from(payload)
        if ids == (10, 51):
            self.end("closed")
        elif ids == (10, 50):
            self.send(methods.ConnectionCloseOk())

    def _new_channel(self, number: int) -> Channel:
        if len(self.channels) >= self.channel_max:
            raise ConnectionFailure(
                ReplyCode.NOT_ALLOWED,
                f"number of channels opened ({len(self.channels)}) has reached the negotiated channel_max "
                f"({self.channel_max})",
            )
        self.hub.tally.check_channel(self.user)
        self.hub.tally.count_channels(self.user.name, 1)
        channel = self.channels[number] = Channel(self, number)
        return channel

    def forget_channel(self, channel: Channel) -> None:
        """A channel is closed on both sides; its number may be used again."""
        del self.channels[channel.number]
        self.hub.tally.count_channels(self.user.name, -1)
        carried.close(channel)

    def receive_eof(self, now: int) -> None:
        """The peer is gone, or the server gave it up."""
        self.now = self.broker.now = now
        self.end("the peer hung up")

    # ---- bytes out

    def touch(self) -> None:
        """Have the server look at this session."""
        if not self.listed:
            self.listed = True
            self.hub.touched.append(self)

    def send(self, method: Method) -> None:
        """Send a method on channel 0."""
        self.outbox.write(method.frame(0))

    # ---- what channels need

    def capability(self, name: str) -> bool:
        """Whether the client declared a capability."""
        return self.capabilities.get(name) is True

    def route(self, method: methods.BasicPublish, arguments: bytes) -> Route:
        """The route of a publish with these argument bytes. ChannelError, ConnectionFailure: see `find_route`."""
        route = self.routes.get(arguments)
        if route is None:
            route = find_route(self, method)
            self._memory.remember(self.routes, arguments, route)
        return route

    def remember_template(self, template: Template) -> None:
        """Know publishes that begin like this one from now on."""
        self._memory.remember(self.templates, template.beginning, template)

    def remember_shape(self, form: Form, shape: Shape) -> None:
        """Know publishes of this shape from now on."""
        self._memory.remember_shape(form, shape)

    def kind_of(self, method: bytes, route: Route, traits: Traits) -> Kind:
        """The kind of publishes with this method frame and such traits."""
        key = method, traits.persistent, traits.priority, traits.expiration_ms is not None
        kind = self._memory.kinds.get(key)
        if kind is None:
            kind = Kind(int.from_bytes(method[1:3], "big"), route, traits)
            self._memory.remember(self._memory.kinds, key, kind)
        return kind

    def note_confirms(self, channel: Channel) -> None:
        """A channel has publishes to confirm at the end of this batch."""
        if not self._confirming or self._confirming[-1] is not channel:
            self._confirming.append(channel)

    def note_publish(self) -> None:
        """The peer publishes; under an alarm that gets it held back."""
        self.publishes = True
        if self.hub.alarm and not self.blocked:
            self._hold_back(blocked=True)

    @property
    def ahead(self) -> bool:
        """Whether the peer publishes more than those take who are at work for it."""
        kind = self.kind
        if kind is None or not kind.route.targets:
            return False
        now = self.broker.now
        for target in kind.route.targets[:_LOOKED_AT]:  # noqa: SIM110 (any() takes three times as long)
            if target.outpaced(now):
                return True
        return False

    @property
    def recorded(self) -> int:
        """The number of the last change that was recorded, what was acknowledged until now included.

        So an answer that waits for the disk says of everything before that it is there.
        """
        recorder = self.vhost.recorder
        if recorder is None:
            return 0
        self.broker.take_acknowledged()
        return recorder.position

    def hold_answers(self, before: int, *, durable: bool) -> None:
        """What was recorded since `before` must be on disk before the peer hears of it.

        So must what others declared, where the peer asked for something `durable` that may have been there.
        """
        recorder = self.vhost.recorder
        if recorder is None:
            return
        self.hold_until(recorder.position if recorder.position > before else recorder.declared if durable else 0)

    def hold_until(self, until: int) -> None:
        """The journal must be on disk up to here before the peer hears any more."""
        if until > self.hub.durable:
            self.outbox.held_until = max(self.outbox.held_until, until)
            self.hub.wanted = max(self.hub.wanted, until)
            self.hub.wanted_on_disk = max(self.hub.wanted_on_disk, until)

    def expect_content(self, size: int) -> None:
        """Count a body that was announced (or, negative, has arrived). ConnectionFailure 506: too many at once."""
        self.arriving += size
        self.hub.partial_bytes += size
        if self.arriving > self.settings.partial_content_bytes and size > 0:
            raise ConnectionFailure(ReplyCode.RESOURCE_ERROR, "too many unfinished message bodies on this connection")

    def occupy(self, work: Iterator[None]) -> None:
        """Have this done a piece at a time, and hear nothing from the peer before it is."""
        self.busy = True
        self.broker.chores.add(self._occupied(work))

    def _occupied(self, work: Iterator[None]) -> Iterator[None]:
        try:
            yield from work
        except Exception as error:  # noqa: BLE001  (ours, as in receive_data; or the peer would never be heard again)
            self._own_fault(error)
        self.busy = False
        self.receive_data(b"", self.broker.now)
        self.touch()

    # ---- the server's pauses

    def pause(self) -> None:
        """The server does not read for a while, so the peer cannot be heard."""
        self.paused = True

    def resume(self, now: int) -> None:
        """It does again."""
        self.paused = False
        self.heard = now

    # ---- alarms

    def alarms_cleared(self) -> None:
        """The last alarm is over. That one was set concerns a peer when it publishes (RabbitMQ: publish_received)."""
        if self.blocked and self.state == "running":
            self._hold_back(blocked=False)

    def _hold_back(self, *, blocked: bool) -> None:
        """Stop or go on reading, and say so to those who understand."""
        self.blocked = blocked
        self.reading = not blocked
        self.heard = self.broker.now  # while we did not read we could not hear
        if self.capability("connection.blocked"):
            reason = self.hub.alarm
            self.send(methods.ConnectionBlocked(reason=reason) if blocked else methods.ConnectionUnblocked())
        self.touch()

    # ---- the beginning and the end

    def enter(self, vhost: Vhost) -> None:
        """The handshake is over: work in this virtual host."""
        self.vhost = vhost
        self.state = "running"
        self.hub.tally.count_connection(self.user.name, vhost.name, 1)
        known = vhost.route_memories.get(self.user.name)
        if isinstance(known, RouteMemory):
            self._memory = known
            self.routes, self.templates, self.shapes = known.routes, known.templates, known.shapes
        else:
            vhost.route_memories[self.user.name] = self._memory
        self.heard = self.now
        name = self.client_properties.get("connection_name")
        self.log = self.log.bind(user=self.user.name, vhost=vhost.name, client=name)
        self.log.info("connection opened")
        self.patience.begin_heartbeats(self.now)

    def close(self, error: AMQPError, patience_ms: int) -> None:
        """Let go of everything, tell the peer why, and wait a while for it to agree."""
        self._let_go()
        self.state = "closing"
        self.send(
            methods.ConnectionClose(
                reply_code=error.code, reply_text=error.short_text, class_id_=error.class_id, method_id_=error.method_id
            )
        )
        self.reading = True
        self.patience.hang_up(self.now + patience_ms)

    def stop(self, error: AMQPError, now: int) -> None:
        """The broker wants this connection closed."""
        self.now = self.broker.now = now
        if self.state == "running":
            self.close(error, self.settings.close_timeout_ms)
        else:
            self.end("the broker stops")

    def linger(self) -> None:
        """Say nothing more, hear nothing more, and hang up after a while."""
        self._let_go()
        self.state = "closed"
        self.patience.hang_up(self.now + self.settings.refused_linger_ms)

    def closed_by_peer(self) -> None:
        """connection.close came: let go, agree, and leave the hanging up to the peer for a while."""
        self._let_go()
        carried.forget(self)
        self.send(methods.ConnectionCloseOk())
        self.state = "done"
        self.reading = True  # for its hanging up, though an alarm held it back
        self.log.info("connection closed")
        self.patience.hang_up(self.now + self.settings.close_timeout_ms)

    def _let_go(self) -> None:
        """Give back what the peer held: consumers, unacknowledged messages, exclusive queues."""
        if self.state != "running":
            return
        for channel in list(self.channels.values()):
            try:
                channel.flush_confirms()
                channel.shut()
            except Exception as error:  # ours, whatever it is: the other channels must still let go
                self.log.exception("internal error", error)
        self.hub.tally.count_connection(self.user.name, self.vhost.name, -1)
        self.hub.tally.count_channels(self.user.name, -len(self.channels))
        self.channels.clear()
        self._confirming.clear()
        self.vhost.release_owner(self)

    def end(self, why: str) -> None:
        """Have the server close the socket."""
        if self.ended:
            return
        self._let_go()
        if self.state == "running":
            self.log.info("connection lost", reason=why)
        self.state = "closed"
        self.ended = True
        self.reading = False
        if self.login is not None:
            self.login.abandoned = True
        self.patience.end()
        self.hub.sessions.discard(self)
        carried.let_go(self)
        self.touch()
        self.outbox.end()
        self.template = self.kind = None  # which lead to queues, and they to their owners
