"""A consumer: counts deliveries, takes their latency, acknowledges them.

Deliveries of one queue are mostly alike to the byte but for delivery tag, time and filler. What such a delivery looks
like is learned from one that was read frame by frame (a `Shape`), and those that follow are then read by one unpacking
each, without a copy. What differs anywhere is read frame by frame again.
"""

from __future__ import annotations

from struct import Struct

from rabbitish.perf.options import STAMPED_BYTES, Options
from rabbitish.perf.payload import STAMP, STAMP_AT, Stamping
from rabbitish.perf.peer import CHANNEL, Peer, PeerError, Script, ask
from rabbitish.perf.plan import Plan
from rabbitish.perf.stats import Stats
from rabbitish.wire import methods
from rabbitish.wire.codec import IDS
from rabbitish.wire.frames import CONTENT_HEAD, FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_METHOD, HEAD, method_frame
from rabbitish.wire.method import Method

_END = bytes((FRAME_END,))
_TAG_BYTES = 8
_MOST_MIDDLES = 256  # differing priorities, routing keys and the like of one length
# Method frame of basic.ack: type, channel, payload size, class, method, tag, multiple, end.
_ACK = Struct(">BHIHHQBB")


def acks(first: int, last: int, every: int) -> bytes:
    """The acknowledgements for tags `first` to `last`: one for each, or with `every` one, for many, each so many."""
    pack = _ACK.pack
    step, multiple = (every, 1) if every else (1, 0)
    start = -(-first // step) * step
    frames = [pack(FRAME_METHOD, CHANNEL, 13, 60, 80, tag, multiple, FRAME_END) for tag in range(start, last + 1, step)]
    return b"".join(frames)


class Shape:
    """What deliveries look like: what comes before the tag, what between tag and body, and how long all of it is."""

    __slots__ = ("body_bytes", "middles", "prefix", "stride", "struct")

    def __init__(self, prefix: bytes, middle: bytes, body_bytes: int) -> None:
        self.prefix = prefix
        self.middles = {middle}
        self.body_bytes = body_bytes
        rest = body_bytes - STAMPED_BYTES
        self.struct = Struct(f">{len(prefix)}sQ{len(middle)}s{STAMP_AT}xQ{rest}xB")
        self.stride = self.struct.size

    def takes(self, prefix: bytes, middle: bytes, body_bytes: int) -> bool:
        """Learn from one more delivery; whether it fits."""
        if prefix != self.prefix or body_bytes != self.body_bytes or len(middle) != len(next(iter(self.middles))):
            return False
        if len(self.middles) >= _MOST_MIDDLES:
            self.middles.clear()
        self.middles.add(middle)
        return True


class Consumer(Peer):
    """Consumes from `begin` on. `number` says which of the consumers it is; `names`: of the queues, as declared."""

    def __init__(self, plan: Plan, number: int, names: list[str], stats: Stats, stamping: Stamping) -> None:
        self._options: Options = plan.options
        self._queue = plan.consumer_queue(number, names)
        self._stats = stats
        self._stamping = stamping
        self._limit = plan.options.cmessages
        self._count = 0
        self._acked = 0  # the tag up to which we have acknowledged or need not
        self._tag = 0  # of the last delivery
        self._shape: Shape | None = None
        self._method = b""  # payload of the basic.deliver whose content is coming
        self._header = b""
        self._missing = 0  # bytes of the body that are to come
        self._stamp = 0
        super().__init__(plan.options.login)

    def script(self) -> Script[None]:
        """See Peer."""
        options = self._options
        for count, for_channel in ((options.qos, False), (options.global_qos, True)):
            if count:
                yield from ask(methods.BasicQos(prefetch_count=count, global_=for_channel), methods.BasicQosOk)

    def begin(self) -> None:
        """Consume; `ready` again when the broker has agreed."""
        self.run_script(self._consume())

    def _consume(self) -> Script[None]:
        consume = methods.BasicConsume(queue=self._queue, no_ack=self._options.autoack)
        yield from ask(consume, methods.BasicConsumeOk)

    @property
    def done(self) -> bool:
        """It has consumed as many as it was to."""
        return bool(self._limit) and self._count >= self._limit

    # ---- in

    def receive(self, data: bytes, now: int) -> None:
        """See Peer."""
        super().receive(data, now)
        self._acknowledge()

    def skim(self, now: int) -> None:
        """Deliveries of the shape that is known."""
        shape = self._shape
        if shape is None or self._method or self.done:
            return
        parser = self._parser
        data, pos, stride = parser.data, parser.pos, shape.stride
        fitting = (len(data) - pos) // stride
        if self._limit:
            fitting = min(fitting, self._limit - self._count)
        if not fitting:
            return
        prefix, middles = shape.prefix, shape.middles
        count = run = 0
        tag = self._tag
        stamp = -1
        with memoryview(data) as view:
            for before, this, middle, sent_at, end in shape.struct.iter_unpack(view[pos : pos + fitting * stride]):
                if before != prefix or middle not in middles or end != FRAME_END:
                    break
                tag = this
                count += 1
                if sent_at != stamp:
                    if run:
                        self._record(stamp, run, now)
                    stamp, run = sent_at, 0
                run += 1
        if count:
            self._record(stamp, run, now)
            parser.pos = pos + count * stride
            self._counted(tag, count, count * shape.body_bytes, now)

    def on_method(self, method: Method, payload: bytes, now: int) -> None:
        """See Peer."""
        if isinstance(method, methods.BasicDeliver):
            self._method = payload
            self._tag_coming = method.delivery_tag
            self._tag_at = HEAD.size + IDS.size + 1 + len(method.consumer_tag.encode("utf-8", "surrogateescape"))
        elif isinstance(method, methods.BasicCancel):
            raise PeerError(f"the broker cancelled the consumer: queue {self._queue!r} is gone")

    def on_content(self, kind: int, payload: bytes, now: int) -> None:
        """See Peer."""
        if kind == FRAME_HEADER:
            self._header = payload
            self._body_bytes = self._missing = CONTENT_HEAD.unpack_from(payload)[2]
            self._stamp = 0
        elif kind == FRAME_BODY and self._method:
            if self._missing == self._body_bytes and len(payload) >= STAMPED_BYTES:
                self._stamp = STAMP.unpack_from(payload, STAMP_AT)[0]
                if len(payload) == self._body_bytes:
                    self._learn(self._body_bytes)
            self._missing -= len(payload)
        if self._method and self._header and not self._missing:
            self._method = self._header = b""
            if not self.done:
                self._record(self._stamp, 1, now)
                self._counted(self._tag_coming, 1, self._body_bytes, now)

    def _learn(self, body_bytes: int) -> None:
        """Remember what the delivery looks like that has just come, whose body is in one frame."""
        frame = method_frame(CHANNEL, self._method)
        at = self._tag_at
        header = HEAD.pack(FRAME_HEADER, CHANNEL, len(self._header)) + self._header + _END
        middle = frame[at + _TAG_BYTES :] + header + HEAD.pack(FRAME_BODY, CHANNEL, body_bytes)
        if self._shape is None or not self._shape.takes(frame[:at], middle, body_bytes):
            self._shape = Shape(frame[:at], middle, body_bytes)

    # ---- what came

    def _record(self, stamp: int, times: int, now: int) -> None:
        """So many messages that were sent at `stamp` have come."""
        latency = self._stamping.latency(stamp, now)
        if latency is not None:
            self._stats.latency.record(latency, times)

    def _counted(self, tag: int, count: int, body_bytes: int, now: int) -> None:
        self._tag = tag
        self._count += count
        stats = self._stats
        stats.consumed += count
        stats.consumed_bytes += body_bytes
        stats.last_consumed = now

    # ---- out

    def _acknowledge(self) -> None:
        """Acknowledge what has come, as often as it is to be done."""
        if self._tag > self._acked and not self._options.autoack:
            every = self._options.multi_ack_every
            data = acks(self._acked + 1, self._tag, every)
            if data:
                self._outgoing.append(data)
            self._acked = self._tag

    def close(self) -> None:
        """See Peer. What came since the last acknowledgement of many is acknowledged first."""
        every = self._options.multi_ack_every
        if every and self._tag % every and not self.closing:
            self._outgoing.append(acks(self._tag, self._tag, 1))
        super().close()
