"""A broker without sockets, driven with bytes: what its work costs, free of the noise of a network.

`Inside` is sessions, core and, if a folder is given, the journal, put together as server/ does it. `send` hands bytes
to a session and does everything that follows: settles until nothing is left, takes what the outboxes hold, writes and
syncs the journal. Each call in which the event loop would do nothing else is a stretch; `stretches` has their lengths.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from rabbitish.config import Settings
from rabbitish.core.access import Access
from rabbitish.core.broker import Broker
from rabbitish.session.connection import Session
from rabbitish.session.content import WireCodec
from rabbitish.session.hub import Hub
from rabbitish.store.coordinator import LocalCoordinator
from rabbitish.store.files import RealDisk
from rabbitish.store.journal import Batch, Journal
from rabbitish.store.recovery import recover
from rabbitish.wire import methods
from rabbitish.wire.frames import PROTOCOL_HEADER, content_frames
from rabbitish.wire.method import Method
from rabbitish.wire.properties import Properties

FRAME_MAX = 131_072
START = 1_700_000_000_000
T = TypeVar("T")


class Peer(NamedTuple):
    """Where a session's peer says it comes from."""

    name: str = "bench"
    host: str = "127.0.0.1"
    loopback: bool = True


class NoLog:
    """A log that nobody reads."""

    def info(self, event: str, **fields: object) -> None: ...
    def warning(self, event: str, **fields: object) -> None: ...

    def exception(self, event: str, error: BaseException, **fields: object) -> None:
        raise error

    def bind(self, **fields: object) -> NoLog:
        return self


class Inside:
    """One broker in this process. Keyword arguments are settings."""

    def __init__(self, journal: Path | None = None, **settings: object) -> None:
        self.settings = Settings(**settings)  # type: ignore[arg-type]
        self.now = START
        tokens = itertools.count(1)
        self.broker = Broker(token=lambda: f"{next(tokens):022d}", settle_budget=self.settings.settle_budget_messages)
        self.vhost = self.broker.add_vhost("/")
        access = Access(frozenset({"guest"}), key=b"secret", most_failures=10, cost=4)
        access.add_known_user("guest", "guest", frozenset({"administrator"}), "/")
        self.hub = Hub(self.broker, access, self.settings)
        self.sessions: list[Session] = []
        self.stretches: list[float] = []  # seconds
        self._journal: Journal | None = None
        if journal is not None:
            disk = RealDisk(journal)
            self._journal = recover(
                disk,
                self.broker,
                WireCodec(self.hub.properties),
                LocalCoordinator(disk, lambda: "bench"),
                0,
                segment_bytes=self.settings.journal_segment_bytes,
                on_failure=_fail,
            ).journal
            self.hub.durable = self._journal.durable_lsn
            self.broker.usage.window_bytes = self.settings.queue_window_bytes

    def session(self, *channels: int) -> Session:
        """One more peer, with these channels open."""
        session = Session(self.hub, Peer(), NoLog(), self.now)
        self.sessions.append(session)
        hello = [
            methods.ConnectionStartOk(response=b"\0guest\0guest"),
            methods.ConnectionTuneOk(channel_max=2047, frame_max=FRAME_MAX, heartbeat=0),
            methods.ConnectionOpen(virtual_host="/"),
        ]
        self.send(session, PROTOCOL_HEADER)
        for method in hello:
            self.send(session, method.frame(0))
        for channel in channels or (1,):
            self.send(session, methods.ChannelOpen().frame(channel))
        return session

    def ask(self, session: Session, *asked: Method, channel: int = 1) -> None:
        """Send methods."""
        self.send(session, b"".join([method.frame(channel) for method in asked]))

    def send(self, session: Session, data: bytes) -> None:
        """Hand bytes to a session, and do all that follows."""
        self._timed(session.receive_data, data, self.now)
        self.settle()

    def hang_up(self, session: Session) -> None:
        """The peer is gone."""
        self._timed(session.receive_eof, self.now)
        self.settle()

    def settle(self) -> None:
        """Do all that is to be done at this moment."""
        while True:
            due = self._timed(self.broker.settle, self.now)
            self._sent()
            if self._journal is not None:
                self._sync(self._journal)
                self._sent()
            if (due is None or due > self.now) and not self.broker.restless:
                return

    def _timed(self, call: Callable[..., T], *args: object) -> T:
        began = time.perf_counter()
        answer = call(*args)
        self.stretches.append(time.perf_counter() - began)
        return answer

    def _sent(self) -> None:
        touched = self.hub.touched
        while touched:
            session = touched.pop()
            session.listed = False
            session.outbox.sent(len(session.outbox.take()), self.now)

    def _sync(self, journal: Journal) -> None:
        """What server/syncer.py does. To write and to delete files is a thread's work there, so it is no stretch."""
        batches = self._timed(journal.take)
        if batches:
            journal.write(batches)
            journal.delete(self._timed(self._on_disk, journal, batches))

    def _on_disk(self, journal: Journal, batches: list[Batch]) -> list[str]:
        last = batches[-1].last_lsn
        journal.written(last, sum(each.size for each in batches))
        dead = journal.synced(last)
        self.hub.now_durable(last)
        return dead


def _fail(error: BaseException) -> None:
    raise error


def message(
    key: str, size: int = 100, *, exchange: str = "", persistent: bool = False, headers: object = None
) -> bytes:
    """A publish on channel 1, as bytes."""
    properties = Properties(delivery_mode=2 if persistent else None, headers=headers)  # type: ignore[arg-type]
    publish = methods.BasicPublish(exchange=exchange, routing_key=key).frame(1)
    return publish + content_frames(1, 60, properties.encode(), bytes(size), FRAME_MAX)


def fill(inside: Inside, session: Session, data: bytes, count: int, at_once: int = 500) -> None:
    """Publish one message so often."""
    for _ in range(count // at_once):
        inside.send(session, data * at_once)
    if count % at_once:
        inside.send(session, data * (count % at_once))


def microseconds_each(work: Callable[[], None], count: int, *, repeats: int = 5) -> float:
    """Processor time of `work`, which handles so many messages, for one of them: the least of some repetitions."""
    times = []
    for _ in range(repeats):
        gc.collect()
        gc.disable()
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
        gc.enable()
    return min(times) / count * 1e6
