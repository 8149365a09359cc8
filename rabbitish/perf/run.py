"""A run from the first connection to the last goodbye: the trio front of the peers, and what its phases are.

Declare; connect and log in everybody; start the consumers and then the producers, or with `drain` one after the other;
wait for the limits; count until then and no further; say goodbye. Whatever goes wrong before anything was measured is a
`PeerError`; later it is the outcome's `failure`, beside what was measured until then.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable

import trio

from rabbitish.perf.consumer import Consumer
from rabbitish.perf.links import Link, Loop
from rabbitish.perf.options import Login, Options
from rabbitish.perf.payload import Stamping
from rabbitish.perf.peer import Peer, PeerError
from rabbitish.perf.plan import Plan
from rabbitish.perf.publisher import Publisher
from rabbitish.perf.report import Outcome, progress_line
from rabbitish.perf.stats import Stats
from rabbitish.perf.topology import Declarer

CONNECT_SECONDS = 20
"""How long the broker may take to let one more peer in."""
FINISH_SECONDS = 60
"""How long the broker may take to confirm and work off what was published before a queue is drained."""
CLOSE_SECONDS = 5
"""How long the broker may take to say goodbye."""
IDLE_SECONDS = 10
"""When nothing has come for so long, nothing more will, whatever should."""
QUIET_SECONDS = 1
"""The same where nobody knows how much should come."""

_MILLISECOND = 1_000_000
# A broker may take its time until it knows that a queue has no consumers any more.
_PAUSES_SECONDS = (0.0, 0.1, 0.4, 1.0)


def now() -> int:
    """The run's clock: monotonic nanoseconds, the same for all processes of a machine."""
    return time.monotonic_ns()


async def perform(options: Options, report: Callable[[str], None], stop: trio.Event, *, alone: bool = True) -> Outcome:
    """Do a run; `report` gets the lines of progress, `stop` ends it early. PeerError: nothing could be measured.

    `alone`: the event loop runs nothing else.
    """
    result: list[Outcome] = []
    failures: list[PeerError] = []
    async with trio.open_nursery() as nursery:
        loop = Loop(now, linger=alone)
        nursery.start_soon(loop.run)
        try:
            result.append(await _Run(options, loop, report, stop).perform())
        except PeerError as error:  # raised outside, so that it is not in a nursery's group
            failures.append(error)
        nursery.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return result[0]


class _Run:
    def __init__(self, options: Options, loop: Loop, report: Callable[[str], None], stop: trio.Event) -> None:
        self.options = options
        self.loop = loop
        self.report = report
        self.stop = stop
        self.stats = Stats()
        self.failure: str | None = None
        self.publishers: list[Publisher] = []
        self.consumers: list[Consumer] = []
        self.links: list[Link] = []
        self.expected: int | None = None  # how many queues each message reaches
        self.waiting = 0  # messages that were in the queues before
        self.publishing = _Phase()
        self.consuming = _Phase()

    async def perform(self) -> Outcome:
        """See `perform`."""
        await self._unless_told(self._connect_all)
        if self.stop.is_set():
            self.failure = "stopped before anything was measured"
        if self.failure is not None:
            raise PeerError(self.failure)
        await self._unless_told(self._measure)
        self._stop_counting()
        await self._say_goodbye()
        return Outcome(self.options, self.stats, self.publishing.seconds, self.consuming.seconds, self.failure)

    async def _unless_told(self, part: Callable[[], Awaitable[None]]) -> None:
        """Do a part of the run, until somebody stops it or it fails."""

        async def end_when_told() -> None:
            await self.stop.wait()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_when_told)
            try:
                await part()
            except PeerError as error:  # caught here, so that it is not in the nursery's group
                self.failure = str(error)
            nursery.cancel_scope.cancel()

    # ---- connecting

    async def _connect_all(self) -> None:
        """Declare what is needed, and let everybody in."""
        options = self.options
        plan = Plan(options, f"perf-{secrets.token_hex(8)}")
        declarer = self.declarer = Declarer(options.login, plan)
        self.control = await self._connect(declarer, "")
        await self._let_in(lambda: declarer.ready)
        names = declarer.names
        self.expected, self.waiting = plan.copies(names), declarer.waiting
        stamping = Stamping(_MILLISECOND, time.time_ns() - now()) if options.use_millis else Stamping()
        for number in range(options.consumers):
            consumer = Consumer(plan, number, names, self.stats, stamping)
            self.consumers.append(consumer)
            await self._let_one_in(consumer, f"consumer {number + 1}")
        for number in range(options.producers):
            publisher = Publisher(plan, number, names, self.stats, stamping)
            self.publishers.append(publisher)
            await self._let_one_in(publisher, f"producer {number + 1}")

    async def _connect(self, peer: Peer, name: str) -> Link:
        with trio.move_on_after(CONNECT_SECONDS):
            return Link(self.loop, await connect(peer.login), peer, name)
        raise PeerError(f"cannot connect to {peer.login.address}: no answer")

    async def _let_in(self, true: Callable[[], bool]) -> None:
        with trio.move_on_after(CONNECT_SECONDS):
            await self.loop.until(true)
            return
        raise PeerError(f"{self.options.login.address} does not answer")

    async def _let_one_in(self, peer: Peer, name: str) -> None:
        self.links.append(await self._connect(peer, name))
        await self._let_in(lambda: peer.ready)

    # ---- measuring

    async def _measure(self) -> None:
        """Publish and consume."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._show_progress)
            try:
                await (self._one_after_the_other() if self.options.drain else self._together())
            except PeerError as error:
                self.failure = str(error)
            nursery.cancel_scope.cancel()

    def _stop_counting(self) -> None:
        end = now()
        self.publishing.end(self.stats.last_published, end)
        self.consuming.end(self.stats.last_consumed, end)
        self.stats.turn()
        for link in self.links:
            link.peer.close()
        self._flush()

    async def _together(self) -> None:
        await self._begin_consuming()
        self._begin_publishing()
        with trio.move_on_after(self.options.time or math.inf):
            if self._must_publish:
                await self.loop.until(self._published_all)
                self._have_published()
                if self.consumers and not self.options.cmessages:
                    await self._consume_the_rest()
                    return
            if self.consumers and self.options.cmessages:
                await self._consume_the_rest()
            elif not self._must_publish:
                await self.loop.until(lambda: False)

    async def _one_after_the_other(self) -> None:
        self._begin_publishing()
        with trio.move_on_after(self.options.time or math.inf):
            await self.loop.until(self._published_all if self._must_publish else lambda: False)
        await self._finish_publishing()
        await self._begin_consuming()
        await self._consume_the_rest()

    def _begin_publishing(self) -> None:
        self.publishing.began = now()
        for publisher in self.publishers:
            publisher.begin(self.publishing.began)
        self._flush()

    async def _begin_consuming(self) -> None:
        self.consuming.began = now()
        for consumer in self.consumers:
            consumer.begin()
        self._flush()
        await self._let_in(lambda: all(consumer.ready for consumer in self.consumers))

    @property
    def _must_publish(self) -> bool:
        """Whether there is a number of messages that is to be published."""
        return bool(self.publishers and self.options.pmessages)

    def _published_all(self) -> bool:
        """Every producer has done its part, and the kernel has it."""
        return all(publisher.done for publisher in self.publishers) and all(link.sent_all for link in self.links)

    def _have_published(self) -> None:
        self.publishing.complete = True
        if not self.options.confirm or self.options.drain:  # no confirm says when the broker had the last
            self.stats.last_published = now()

    async def _finish_publishing(self) -> None:
        """Have the broker work off all that was published: it answers a goodbye after that."""
        for publisher in self.publishers:
            publisher.halted = True
        with trio.move_on_after(FINISH_SECONDS):
            await self.loop.until(self._published_all)
            for publisher in self.publishers:
                publisher.close()
            self._flush()
            await self.loop.until(lambda: all(publisher.ended for publisher in self.publishers))
            self._have_published()
            return
        raise PeerError(f"what was published is not with the broker after {FINISH_SECONDS} s")

    async def _consume_the_rest(self) -> None:
        """Wait until all consumers have had as many as they should, or nothing comes any more."""
        known = self.expected is not None or self.options.cmessages
        while True:
            before = self.stats.consumed
            with trio.move_on_after(IDLE_SECONDS if known else QUIET_SECONDS):
                await self.loop.until(self._consumed_all)
                break
            if self.stats.consumed == before and not self.options.cmessages:
                break
        self.consuming.complete = True

    def _consumed_all(self) -> bool:
        if self.options.cmessages:
            return all(consumer.done for consumer in self.consumers)
        stats = self.stats
        if self.expected is None:
            return False
        arrived = stats.published - stats.returned - stats.nacked
        return stats.consumed >= self.waiting + arrived * self.expected

    def _flush(self) -> None:
        for link in self.links:
            link.flush()

    # ---- the side

    async def _show_progress(self) -> None:
        began = before = now()
        wake = trio.current_time()
        while True:
            wake += self.options.interval
            await trio.sleep_until(wake)
            this = now()
            blocked = sum(publisher.blocked for publisher in self.publishers)
            seconds = _seconds(before, this)
            self.report(progress_line(_seconds(began, this), self.stats.turn(), seconds, self.options, blocked))
            before = this

    # ---- the end

    async def _say_goodbye(self) -> None:
        """Wait for everybody's end and take back what was declared, as far as the broker lets us."""
        declarer, link = self.declarer, self.control
        self.loop.failure = None
        with trio.move_on_after(CLOSE_SECONDS):
            try:
                await self.loop.until(lambda: all(each.over for each in self.links))
                for pause in _PAUSES_SECONDS:
                    await trio.sleep(pause)
                    declarer.clean_up()
                    link.flush()
                    await self.loop.until(lambda: declarer.ready or link.over)
                    if declarer.clean or link.over:
                        break
                declarer.close()
                link.flush()
                await self.loop.until(lambda: link.over)
            except PeerError:  # it has gone already
                pass


class _Phase:
    """When something began and ended, and whether all of it was done by itself."""

    def __init__(self) -> None:
        self.began = 0
        self.ended = 0
        self.complete = False

    def end(self, last: int, stopped: int) -> None:
        """It ended with its `last` event if it was complete, else when it was `stopped`; never if it never began."""
        self.ended = (last if self.complete and last else stopped) if self.began else 0

    @property
    def seconds(self) -> float:
        return _seconds(self.began, self.ended)


def _seconds(began: int, ended: int) -> float:
    return max(0, ended - began) / 1e9


async def connect(login: Login) -> socket.socket:
    """A socket to the broker that does not block. PeerError: there is none to be had."""
    try:
        stream = await trio.open_tcp_stream(login.host, login.port)
    except OSError as error:
        raise PeerError(f"cannot connect to {login.address}: {_reason(error)}") from None
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return sock


def _reason(error: BaseException) -> str:
    """What the kernel or the resolver said; trio puts it behind words of its own, for several addresses in a group."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif isinstance(error, OSError) and error.errno:
            return os.strerror(error.errno) if error.errno > 0 else error.strerror or str(error)
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            return str(error)
