"""A producer: as many messages as the window of confirms, the rate and the limit allow, a batch at a time.

A batch is at most `BATCH_BYTES`, so that its time of sending is true for all of it. Confirms may come for one publish
or for many, and for single ones in any order.
"""

from __future__ import annotations

from collections import deque
from struct import Struct

from rabbitish.perf.options import Options
from rabbitish.perf.payload import Payload, Stamping
from rabbitish.perf.peer import CHANNEL, Peer, Script, ask
from rabbitish.perf.plan import Plan
from rabbitish.perf.stats import Stats
from rabbitish.wire import methods
from rabbitish.wire.frames import FRAME_END, FRAME_METHOD
from rabbitish.wire.method import Method

BATCH_BYTES = 64 * 1024
BATCH_MESSAGES = 256
_SECOND = 1_000_000_000

# Method frame of basic.ack and of basic.nack: type, channel, payload size, class, method, tag, bits, end.
_CONFIRM = Struct(">BHIHHQBB")
_CONFIRM_HEAD = (FRAME_METHOD, CHANNEL, 13, 60)
_ACK, _NACK = 80, 120


class Window:
    """Which publishes are confirmed: all up to `low`, and those in `_ahead`."""

    __slots__ = ("_ahead", "_batches", "low", "sent")

    def __init__(self) -> None:
        self.low = 0
        self.sent = 0
        self._ahead: set[int] = set()
        self._batches: deque[tuple[int, int]] = deque()  # the number of its last publish, when it was sent

    @property
    def outstanding(self) -> int:
        """How many publishes are not confirmed."""
        return self.sent - self.low - len(self._ahead)

    def publish(self, count: int, now: int) -> None:
        """So many more were sent at `now`."""
        self.sent += count
        self._batches.append((self.sent, now))

    def confirm(self, tag: int, multiple: bool) -> int:
        """A confirm has come; how many publishes it is for that were not confirmed before."""
        before = self.outstanding
        if multiple:
            self.low = max(self.low, min(tag or self.sent, self.sent))
            if self._ahead:
                self._ahead = {each for each in self._ahead if each > self.low}
        elif self.low < tag <= self.sent:
            self._ahead.add(tag)
        while self._ahead and self.low + 1 in self._ahead:
            self.low += 1
            self._ahead.remove(self.low)
        return before - self.outstanding

    def settled(self, before: int) -> list[tuple[int, int]]:
        """Of the publishes after number `before` up to `low`: when they were sent and how many; each told once."""
        results: list[tuple[int, int]] = []
        batches = self._batches
        while before < self.low:
            last, sent_at = batches[0]
            until = min(last, self.low)
            results.append((sent_at, until - before))
            before = until
            if until == last:
                batches.popleft()
        return results


class Publisher(Peer):
    """Publishes from `begin` on. `number` says which of the producers it is; `names`: of the queues, as declared."""

    def __init__(self, plan: Plan, number: int, names: list[str], stats: Stats, stamping: Stamping) -> None:
        self._plan = plan
        self._options: Options = plan.options
        self._key = plan.producer_key(number, names)
        self._stats = stats
        self._stamping = stamping
        self._window = Window()
        self._began: int | None = None
        self._batch = 1
        self.halted = False
        super().__init__(plan.options.login)

    def script(self) -> Script[None]:
        """See Peer."""
        options = self._options
        if options.confirm:
            yield from ask(methods.ConfirmSelect(), methods.ConfirmSelectOk)
        publish = methods.BasicPublish(exchange=self._plan.exchange, routing_key=self._key, mandatory=options.mandatory)
        self._payload = Payload(CHANNEL, publish, self._plan.properties, options.size, self.frame_max)
        self._batch = max(1, min(BATCH_MESSAGES, BATCH_BYTES // self._payload.message_bytes))

    def begin(self, now: int) -> None:
        """Publish from now on."""
        self._began = now

    @property
    def done(self) -> bool:
        """All that it was to publish is on its way and, where that is asked for, confirmed."""
        if self.halted:
            return self._settled
        limit = self._options.pmessages
        return bool(limit) and self._window.sent >= limit and self._settled

    @property
    def _settled(self) -> bool:
        return not self._options.confirm or not self._window.outstanding

    # ---- out

    def _room(self, now: int) -> int:
        """How many messages may be published at `now`."""
        options, window = self._options, self._window
        if self._began is None or self.halted or self.closing:
            return 0
        room = self._batch
        if options.pmessages:
            room = min(room, options.pmessages - window.sent)
        if options.confirm:
            room = min(room, options.confirm - window.outstanding)
        if options.rate and room > 0:
            allowed = int((now - self._began) * options.rate / _SECOND) + 1 - window.sent
            if allowed > options.rate + 1:  # what was missed is made up for, but not more than a second's worth
                self._began += int((allowed - options.rate - 1) * _SECOND / options.rate)
                allowed = int(options.rate + 1)
            room = min(room, allowed)
        return max(0, room)

    def take(self, now: int) -> bytes:
        """See Peer."""
        data = super().take(now)
        count = self._room(now)
        if not count:
            return data
        batch = self._payload.batch(count, self._stamping.at(now))
        stats = self._stats
        stats.published += count
        stats.last_published = now
        if self._options.confirm:
            self._window.publish(count, now)
        else:
            self._window.sent += count
        return data + batch if data else batch

    def due(self, now: int) -> int | None:
        """See Peer."""
        if self._outgoing or self._room(now):
            return now
        rate = self._options.rate
        if not rate or self._began is None or self.halted or self.closing:
            return None
        limit, confirm = self._options.pmessages, self._options.confirm
        if (limit and self._window.sent >= limit) or (confirm and self._window.outstanding >= confirm):
            return None
        return self._began + int(self._window.sent * _SECOND / rate) + 1

    # ---- in

    def skim(self, now: int) -> None:
        """Confirms, which come by the thousand where a broker confirms publishes one by one."""
        parser = self._parser
        data, pos = parser.data, parser.pos
        last = len(data) - _CONFIRM.size
        while pos <= last:
            kind, channel, size, class_id, method_id, tag, bits, end = _CONFIRM.unpack_from(data, pos)
            if (kind, channel, size, class_id) != _CONFIRM_HEAD or method_id not in (_ACK, _NACK) or end != FRAME_END:
                break
            self._confirmed(tag, bool(bits & 1), method_id == _NACK, now)
            pos += _CONFIRM.size
        parser.pos = pos

    def on_method(self, method: Method, payload: bytes, now: int) -> None:
        """See Peer."""
        if isinstance(method, methods.BasicReturn):
            self._stats.returned += 1

    def _confirmed(self, tag: int, multiple: bool, negative: bool, now: int) -> None:
        stats, window = self._stats, self._window
        low = window.low
        count = window.confirm(tag, multiple)
        if negative:
            stats.nacked += count
        else:
            stats.confirmed += count
        stats.last_published = now
        for sent_at, times in window.settled(low):
            stats.confirm_latency.record(now - sent_at, times)
