"""One client's session as it passes through: bytes in from either side, bytes out to both.

    from_client(data), from_leader(data)      take_for_leader(), take_for_client()

    detach()   the leader is gone             attach()   another one has let the session in, by `passport`

Until the first change nothing is altered on its way (but nowait, since a request without an answer could not be known
to have arrived, and channel.open, which says more; see channel.py). After it numbers are the client's on one side and
the new leader's on the other. What the leader says is believed, as it is a node of the same version; what the client
says that cannot be understood is left to the leader.
"""

from __future__ import annotations

from dataclasses import replace
from struct import Struct
from typing import Any, cast

from rabbitish.errors import AMQPError, ReplyCode
from rabbitish.gateway.answers import NOTES
from rabbitish.gateway.channel import Channel, Request
from rabbitish.gateway.cutting import METHOD_AT, Cutter, key_of
from rabbitish.gateway.greeting import Greeting
from rabbitish.gateway.restoring import Restoring
from rabbitish.gateway.streams import Streams
from rabbitish.gateway.topology import Topology
from rabbitish.wire import methods
from rabbitish.wire.frames import FRAME_MIN_SIZE, HEAD
from rabbitish.wire.method import Method, decode_method

_PUBLISH = key_of(methods.BasicPublish)
_DELIVER = key_of(methods.BasicDeliver)
_GET_OK = key_of(methods.BasicGetOk)
_RETURN = key_of(methods.BasicReturn)
_ACK = key_of(methods.BasicAck)
_NACK = key_of(methods.BasicNack)
_CHANNEL_CLOSE = key_of(methods.ChannelClose)
_CONNECTION_CLOSE = key_of(methods.ConnectionClose)
_LAST_WORDS = frozenset((_CONNECTION_CLOSE, key_of(methods.ConnectionCloseOk)))
_SETTLING = frozenset((_ACK, _NACK, key_of(methods.BasicReject)))
_CONFIRMING = frozenset((_ACK, _NACK))
_TAG = Struct(">Q")
_TAG_AT = METHOD_AT + 4
_CONFIRM = Struct(">QB")
_SWALLOWED = b""
_NONSENSE = "the client has said what cannot be understood"


class LeaderFault(Exception):
    """The leader says what cannot be: a bug of ours, at one end or the other."""


def method_in(data: bytes, start: int) -> Method:
    """The method of the frame that begins there. AMQPError: it does not decode."""
    size = HEAD.unpack_from(data, start)[2]
    return decode_method(data[start + METHOD_AT : start + METHOD_AT + size])


class Gateway(Streams):
    """See the module. `most` is how many bytes of publishes are kept that are not confirmed, or are not committed.

    `unfinished` is how many of contents that are not whole; 0: as many. `certificate_name`: Session's. `mark` is what
    leaders know the session by.
    """

    def __init__(
        self,
        *,
        most: int,
        unfinished: int = 0,
        frame_min: int = FRAME_MIN_SIZE,
        certificate_name: str | None = None,
        mark: bytes = b"",
    ) -> None:
        super().__init__(frame_min)
        self.channels: dict[int, Channel] = {}
        self.topology = Topology()
        self.greeting = Greeting(certificate_name)
        self.open = False
        """The handshake is over."""
        self.over = False
        """One side has said that it closes, so the next end of a connection is the end."""
        self.why_not = ""
        """Why the session cannot be opened anew, if it cannot."""
        self.kept_bytes = 0
        """Of publishes without a confirm."""
        self.open_bytes = 0
        """Of publishes in open transactions, which do not hold the client up: it might never come to commit them."""
        self._most = most
        self._mark = mark
        self._streams = 0  # channels that the client has opened
        self._raw = False  # see _lose_track
        self._blocked = False  # the client was told so
        self._zero = Channel(0)
        self._moved = False  # whether there has been a change of leader
        self._closing = False  # the client wants to close
        self._restoring = Restoring(self)
        self._unfinished = unfinished or most

    @property
    def hears_client(self) -> bool:
        """Whether the client is to be heard for the time being."""
        return not self._restoring.at_work and self.kept_bytes < self._most

    def _lose_track(self) -> None:
        """Nobody knows any more what answers what: bytes pass as they are, where numbers are the same on both sides."""
        if self._raw:
            return
        self._raw = True
        self.why_not = self.why_not or _NONSENSE
        if self._moved:
            self._for_leader.clear()
            self.give_up(self.why_not)
        else:
            self._for_leader.append(self._client.let_go())
            self._leader.judge = self._of_leader_by_itself
            self.channels.clear()
            self.kept_bytes = self.open_bytes = 0  # which nobody would confirm, and the client would be heard no more

    # ---- another leader

    @property
    def resumable(self) -> bool:
        """Whether another leader can take the session over."""
        return self.open and not self.over and not self.why_not

    def passport(self) -> bytes:
        """For another leader. ValueError: there is none, and why."""
        return self.greeting.passport(self.topology.names, self._mark)

    def detach(self) -> None:
        """The leader is gone."""
        self._leader = Cutter(self._of_leader)
        self._for_leader.clear()
        self._moved = True
        self._zero.leave()
        for channel in list(self.channels.values()):
            closed = channel if channel.agreed else channel.previous
            if closed is not None:  # whatever the leader would have said
                self.say_to_client(closed.number, methods.ChannelCloseOk())
                self.forget(closed)
            if closed is channel:
                continue
            channel.leave()
            if channel.orphan:
                self._orphaned(channel)
        if self._closing:
            self.say_to_client(0, methods.ConnectionCloseOk())
            self.over = True

    def _orphaned(self, channel: Channel) -> None:
        """Nobody but us knows now that the client has yet to agree to the end of this channel."""
        if channel.leaves:
            self.say_to_client(channel.number, methods.ChannelCloseOk())
        channel.log.clear()

    def attach(self) -> None:
        """Another leader has let the session in."""
        if self._blocked:
            self._blocked = False
            self.say_to_client(0, methods.ConnectionUnblocked())
        self._restoring.begin()

    def ask_again(self, channel: Channel) -> None:
        """The channel is what it was: send what is under way on it."""
        for each in channel.under_way():
            if isinstance(each, bytes):
                self._for_leader.append(each)
            else:
                self.ask(channel, each)

    def ask_again_on_0(self) -> None:
        """The same for the connection itself."""
        self.ask_again(self._zero)

    def ask(self, channel: Channel, request: Request) -> None:
        """Send a request to the leader."""
        self.say_to_leader(channel.number, channel.resolved(request.method))
        channel.requests.append(request)

    def give_up(self, why: str) -> None:
        """Tell the client that it ends here."""
        error = AMQPError(ReplyCode.CONNECTION_FORCED, why)
        self.say_to_client(0, methods.ConnectionClose(reply_code=error.code, reply_text=error.short_text))
        self.over = True

    # ---- what the client says

    def _of_client(self, key: int, number: int, data: bytes, start: int, end: int) -> bytes | None:
        if key == _PUBLISH:
            channel = self.channels.get(number)
            if channel is not None:
                if channel.mode is not None:
                    channel.published += 1
                    channel.kept.append(data[start:end])
                    self._keep(channel, end - start)
                    if self.open_bytes > self._most:
                        self._give_up_on(channel)
                elif channel.orphan:
                    return _SWALLOWED
            return None
        if key in _SETTLING:
            channel = self.channels.get(number)
            if channel is None or not (channel.tag_offset or channel.orphan):
                return None
            return self._settles(channel, data, start, end)
        try:
            method = method_in(data, start)
        except AMQPError:
            self.why_not = _NONSENSE
            return None
        return self._on_0(method) if number == 0 else self._on_channel(number, method)

    def _give_up_on(self, channel: Channel) -> None:
        """Open transactions are too large, and must be heard to their ends all the same."""
        self.why_not = self.why_not or "it has a transaction that is too large"
        self._keep(channel, -channel.done_with(channel.published))
        channel.mode = None

    def _keep(self, channel: Channel, size: int) -> None:
        """So many bytes more of a channel are kept."""
        if type(channel.mode) is methods.TxSelect:
            self.open_bytes += size
        else:
            self.kept_bytes += size

    def _settles(self, channel: Channel, data: bytes, start: int, end: int) -> bytes | None:
        """An ack, nack or reject; of what another leader delivered it says nothing to this one."""
        if channel.orphan:
            return _SWALLOWED
        if end - start <= _TAG_AT + _CONFIRM.size:  # it is cut short, and there is no tag
            self.why_not = _NONSENSE
            return None
        (tag,) = _TAG.unpack_from(data, start + _TAG_AT)
        if not tag:  # everything; but of what this leader delivered the client has seen nothing yet
            return _SWALLOWED if channel.last_tag == channel.tag_offset else None
        if tag <= channel.tag_offset:
            return _SWALLOWED
        at = start + _TAG_AT
        return data[start:at] + _TAG.pack(tag - channel.tag_offset) + data[at + _TAG.size : end]

    def _on_0(self, method: Method) -> bytes | None:
        if not self.open:
            self.greeting.heard(method)
            if isinstance(method, methods.ConnectionTuneOk):
                self._client.limit = method.frame_max
        elif isinstance(method, methods.ConnectionClose):
            self._closing = True
        elif isinstance(method, methods.ConnectionUpdateSecret):
            self._zero.requests.append(Request(method))
        return None

    def _on_channel(self, number: int, method: Method) -> bytes | None:
        if not self.greeting.whole:  # the leader's answer says what it was, so that is not altered
            return None
        channel = self.channels.get(number)
        if channel is None or (isinstance(method, methods.ChannelOpen) and channel.leaves):
            if not isinstance(method, methods.ChannelOpen):
                return None
            channel = self._opened(number, channel)
            method = channel.open
        if channel.closing:
            return self._while_closing(channel, method)
        if not method.replies:
            return None
        if isinstance(method, methods.TxSelect | methods.ConfirmSelect):
            channel.mode = channel.mode or type(method)()
        quiet = getattr(method, "nowait", False)
        if quiet:
            method = replace(cast("Any", method), nowait=False)
        request = Request(method, after=channel.published, quiet=quiet)
        changed = quiet or self._moved or isinstance(method, methods.ChannelOpen)
        said = channel.resolved(method).frame(number) if changed else None
        channel.requests.append(request)
        return said

    def _opened(self, number: int, previous: Channel | None) -> Channel:
        """The client opens a channel, maybe before it has heard that the last one of that number is closed."""
        self._streams += 1
        channel = self.channels[number] = Channel(number, self._streams)
        channel.previous = previous
        if previous is not None and previous.previous is not None:  # which nobody does who means well
            self._client.lost = True
        return channel

    def _while_closing(self, channel: Channel, method: Method) -> bytes | None:
        """The leader has closed the channel: nothing is heard but what belongs to that."""
        if isinstance(method, methods.ChannelCloseOk):
            if channel.leaves:
                channel.agreed = True  # both wanted that at once: the leader's agreement is still to come
            else:
                del self.channels[channel.number]
        elif isinstance(method, methods.ChannelClose):
            if channel.orphan:
                self.say_to_client(channel.number, methods.ChannelCloseOk())
            else:
                channel.requests.append(Request(method))
        return _SWALLOWED if channel.orphan else None

    # ---- what the leader says

    def _of_leader(self, key: int, number: int, data: bytes, start: int, end: int) -> bytes | None:
        if key == _DELIVER:
            at = start + _TAG_AT + 1 + data[start + _TAG_AT]
            return self._numbered(self._channel(number), data, start, at, end)
        if key in _CONFIRMING:
            return self._confirmed(self._channel(number), data, start, end)
        if key == _RETURN:
            return None
        if key == _CONNECTION_CLOSE:  # whose text may quote what does not decode
            self.over = True
            return None
        if key == _CHANNEL_CLOSE:
            return self._closed(self._restoring.setup or self._channel(number))
        method = method_in(data, start)
        if number == 0:
            return self._on_0_by_leader(method)
        channel = self._restoring.setup or self._channel(number)
        if isinstance(method, methods.BasicCancel):
            self._cancelled(channel, method.consumer_tag)
            return None
        quiet = self._answered(channel, method)
        if key == _GET_OK:
            return self._numbered(channel, data, start, start + _TAG_AT, end)
        return _SWALLOWED if quiet else None

    def _of_leader_by_itself(self, key: int, number: int, data: bytes, start: int, end: int) -> None:
        """The same when it is not known any more what the client has said: only whether it was the last word."""
        if number == 0 and key in _LAST_WORDS:
            self.over = True

    def _channel(self, number: int) -> Channel:
        channel = self.channels.get(number)
        if channel is None:
            raise LeaderFault(f"the leader speaks on channel {number}, which is closed")
        return channel.previous or channel

    def _numbered(self, channel: Channel, data: bytes, start: int, at: int, end: int) -> bytes | None:
        """A delivery whose tag stands at `at`, with the tag that the client knows it by."""
        tag: int = _TAG.unpack_from(data, at)[0]
        offset = channel.tag_offset
        if tag + offset > channel.last_tag:
            channel.last_tag = tag + offset
        return data[start:at] + _TAG.pack(tag + offset) + data[at + _TAG.size : end] if offset else None

    def _confirmed(self, channel: Channel, data: bytes, start: int, end: int) -> bytes | None:
        at = start + _TAG_AT
        tag, flags = _CONFIRM.unpack_from(data, at)
        number, freed = channel.confirmed(tag, multiple=bool(flags & 1))
        self._keep(channel, -freed)
        return data[start:at] + _TAG.pack(number) + data[at + _TAG.size : end] if number != tag else None

    def _on_0_by_leader(self, method: Method) -> bytes | None:
        if isinstance(method, methods.ConnectionOpenOk):
            self.open = True
            self._client.most = self._unfinished
            try:
                self.passport()
            except ValueError as error:
                self.why_not = str(error)
        elif isinstance(method, methods.ConnectionCloseOk):
            self.over = True
        elif isinstance(method, methods.ConnectionBlocked | methods.ConnectionUnblocked):
            self._blocked = isinstance(method, methods.ConnectionBlocked)
        elif isinstance(method, methods.ConnectionUpdateSecretOk):
            self._answered(self._zero, method)
        return None

    def _closed(self, channel: Channel) -> bytes | None:
        """The leader has closed a channel."""
        if self._restoring.closed(channel):
            return _SWALLOWED
        channel.closing = True
        closes = [request for request in channel.requests if type(request.method) is methods.ChannelClose]
        self._empty(channel)
        channel.requests.extend(closes)
        return None

    def _empty(self, channel: Channel) -> None:
        """It holds nothing any more."""
        self._keep(channel, -channel.done_with(channel.published))
        channel.mode = None
        channel.requests.clear()
        channel.log.clear()
        for tag in list(channel.consumers):
            self._cancelled(channel, tag)

    def _cancelled(self, channel: Channel, tag: str) -> None:
        consumer = channel.consumers.pop(tag, None)
        if consumer is not None:
            self.topology.consumer_gone(consumer.consume.queue)

    def _answered(self, channel: Channel, answer: Method) -> bool:
        """The oldest request of a channel has its answer; whether that is not for the client."""
        request = channel.requests.popleft() if channel.requests else None
        if request is None or answer.name not in request.method.replies:
            raise LeaderFault(f"{answer.name} on channel {channel.number}, where nobody has asked for that")
        if request.restores:
            self._restoring.answered(channel)
            return True
        method = channel.named(request.method)
        note = NOTES.get(type(method))
        if note is not None:
            note(channel, self.topology, method, answer)
            if self.topology.too_much:
                self.why_not = "it has declared too much"
        elif isinstance(method, methods.TxCommit | methods.TxRollback):
            self._keep(channel, -channel.done_with(request.after))
        elif isinstance(method, methods.BasicCancel):
            self._cancelled(channel, method.consumer_tag)
        elif isinstance(method, methods.ChannelClose) and (channel.agreed or not channel.closing):
            self.forget(channel)
        return request.quiet

    def forget(self, channel: Channel) -> None:
        """A channel is closed, at both ends."""
        self._empty(channel)
        current = self.channels[channel.number]
        if current is channel:
            del self.channels[channel.number]
        else:
            current.previous = None

    @property
    def heartbeat_seconds(self) -> int:
        """What was agreed on; 0: no heartbeats."""
        return self.greeting.heartbeat if self.open else 0
