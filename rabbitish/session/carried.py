"""Sessions that another node of the cluster brings, and may bring again elsewhere: what they publish is numbered.

Such a session has a mark, by which it is known to every leader. A channel is opened by its node with two numbers in
channel.open's one argument, which nobody else uses: which channel of the session it is, and up to which publish the
client knows what became of them. From the channel's first confirm.select or tx.select on publishes count, here as at
the node. What the journal has of them already is counted and not published again; what it has got it is told, behind
it, once a batch.

Only what is in the journal for every queue that it went to counts as being there. All else died with the last leader.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rabbitish.core.changes import Recorder
from rabbitish.core.sendings import Numbers, Range

if TYPE_CHECKING:
    from rabbitish.session.channel import Channel
    from rabbitish.session.connection import Session
    from rabbitish.session.hub import Hub

_OPENING = re.compile(r"(\d{1,9}):(\d{1,18})", re.ASCII)


class Stream:
    """The publishes of one channel."""

    __slots__ = ("_channel", "_fresh", "_recorder", "_session", "known", "number", "safe_at")

    def __init__(self, recorder: Recorder, session: bytes, channel: int, number: int) -> None:
        self._recorder = recorder
        self._session = session
        self._channel = channel
        self._fresh: list[Range] = []  # in the journal, which has not been told so
        self.number = number
        """Of the last publish."""
        self.known: Numbers | None = recorder.sendings.of(session, channel, number)
        """Those to come that the journal has; None: there are no more."""
        # With the journal on disk up to here these are, since it is further than when they were recorded.
        self.safe_at = recorder.position
        self._look()

    def _look(self) -> None:
        if self.known is not None and self.number >= self.known.last:
            self.known = None

    def count(self) -> bool:
        """Count a publish; whether the journal has it already."""
        self.number += 1
        if self.known is None:
            return False
        there = self.number in self.known
        self._look()
        return there

    def stored(self, number: int, count: int = 1) -> None:
        """The journal has got so many up to this one."""
        first, fresh = number - count + 1, self._fresh
        if fresh and fresh[-1][1] + 1 == first:
            first = fresh.pop()[0]
        fresh.append((first, number))

    def tell(self) -> None:
        """Tell the journal of what it has got."""
        if self._fresh:
            self._recorder.sent(self._session, self._channel, self._fresh)
            self._fresh = []

    def closed(self) -> None:
        """There will be no more."""
        self._recorder.sendings.closed(self._session, self._channel)


def close(channel: Channel) -> None:
    """A channel is closed, on both sides."""
    if channel.stream is not None:
        channel.stream.closed()


def stream_of(channel: Channel) -> Stream | None:
    """What numbers the publishes of a channel from now on, if they are to be."""
    session = channel.session
    recorder = session.vhost.recorder
    opening = _OPENING.fullmatch(channel.opened_as) if session.mark else None
    if opening is None or recorder is None:
        return None
    stream = Stream(recorder, session.mark, int(opening[1]), int(opening[2]))
    if stream.known is not None:
        channel.plain = False
    return stream


def bring(session: Session, mark: bytes) -> None:
    """A node brings this session. If one of its mark is here already, that ends: what it said counts, and no more."""
    hub = session.hub
    leave(hub, mark)
    session.mark = mark
    hub.carried[mark] = session
    if hub.broker.recorder is not None:
        hub.broker.recorder.sendings.came(mark)


def leave(hub: Hub, mark: bytes) -> None:
    """Have no session with this mark here: its node has lost sight of it."""
    known = hub.carried.get(mark)
    if known is not None:
        end_consumers(known, hub.broker.now)
        known.end("its node brings it anew")


def end_consumers(session: Session, now: int) -> None:
    """Take out the consumers of a session that its node will bring again: queues do not delete themselves for that."""
    for channel in session.channels.values():
        for consumer in list(channel.consumers.values()):
            channel.drop_consumer(consumer)
            consumer.waiting = False
            if not consumer.queue.deleted:
                consumer.queue.remove_consumer(consumer, now)


def keep_for_next(session: Session, now: int) -> None:
    """The broker stops, and the next leader gets this session: nothing is deleted with it, as when the broker dies."""
    end_consumers(session, now)
    if session.state == "running":
        session.vhost.disown(session)


def let_go(session: Session) -> None:
    """A session has ended; its node may bring it again, here or elsewhere."""
    hub, mark = session.hub, session.mark
    if mark and hub.carried.get(mark) is session:
        del hub.carried[mark]
        if hub.broker.recorder is not None:
            hub.broker.recorder.sendings.went(mark)


def forget(session: Session) -> None:
    """The client has closed it: nobody will bring it again."""
    recorder = session.hub.broker.recorder
    if session.mark and recorder is not None and recorder.sendings.ended(session.mark):
        recorder.sent(session.mark, 0, [])
