"""A broker in the trio program that the test is.

`broker()` runs the very node that `rabbitish serve` runs, with a clock, a log and a listening socket of its own, as
long as its block. What a test does to it is in `Handle`, which thread.py shares; only what waits is written twice,
there as ordinary functions, here as async ones.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import trio

from rabbitish.config import Settings
from rabbitish.server.node import Node, run
from rabbitish.testing.bench import Bench
from rabbitish.testing.capture import captured_log
from rabbitish.testing.clock import MovableClock, milliseconds
from rabbitish.testing.door import Door
from rabbitish.testing.faults import Fault, How
from rabbitish.testing.views import Connection, Exchange, Queue, Reach, Vhost, connections, drop

T = TypeVar("T")

# How long `wait_until` goes without looking, and how long it waits at most unless told.
PAUSE_SECONDS = 0.002
PATIENCE_SECONDS = 5.0

# Other than in earnest: nobody waits for clients that a test left open, nor guesses passwords, and a test machine's
# disk may be as full as it likes.
_SETTINGS = {"shutdown_grace_ms": 0, "refused_linger_ms": 0, "disk_free_limit_bytes": 0, "log_level": "debug"}


class Handle:
    """What a test does with a broker, of both kinds: it looks at it, and has things go wrong."""

    def __init__(self, reach: Reach, settings: Settings) -> None:
        self._reach = reach
        self.host = reach.host
        self.port = reach.port
        self.default_vhost = settings.default_vhost

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def url(self) -> str:
        """Where clients connect: "amqp://guest:guest@127.0.0.1:40000/%2F"."""
        return self.vhost().url

    @property
    def log(self) -> list[str]:
        """The broker's log so far, a line an event."""
        return self._reach(lambda bench: list(bench.log))

    # ---- what is there

    def vhost(self, name: str | None = None) -> Vhost:
        """A virtual host by its name; without one, the default."""
        return Vhost(self._reach, self.default_vhost if name is None else name)

    def add_vhost(self, name: str | None = None) -> Vhost:
        """Make a virtual host; without a name it gets one. ValueError: it is there already."""
        return Vhost(self._reach, self._reach(lambda bench: bench.add_vhost(name)))

    @contextmanager
    def fresh_vhost(self) -> Iterator[Vhost]:
        """A virtual host for the block, with nothing in it; it goes with everything in it afterwards."""
        vhost = self.add_vhost()
        try:
            yield vhost
        finally:
            vhost.delete()

    def queue(self, name: str) -> Queue:
        """A queue of the default virtual host, whether it exists or not."""
        return self.vhost().queue(name)

    def exchange(self, name: str) -> Exchange:
        """An exchange of the default virtual host, whether it exists or not."""
        return self.vhost().exchange(name)

    @property
    def queues(self) -> list[Queue]:
        """The queues of the default virtual host."""
        return self.vhost().queues

    @property
    def connections(self) -> list[Connection]:
        """The open connections to any virtual host, oldest first."""
        return self._reach(lambda bench: connections(bench, None))

    def publish(self, body: bytes | str, routing_key: str, exchange: str = "", **properties: Any) -> int:
        """See Vhost.publish; into the default virtual host."""
        return self.vhost().publish(body, routing_key, exchange, **properties)

    # ---- what goes wrong

    def drop_connections(self, reason: str | None = None) -> int:
        """Break every connection without a word, or close it with 320 and this reason; returns how many."""
        return self._reach(lambda bench: drop(bench, bench.sessions(), reason))

    def refuse_connections(self) -> None:
        """Refuse new connections, as if nobody listened. Those that are open stay; see `drop_connections`."""
        self._reach(lambda bench: bench.door.shut())

    def accept_connections(self) -> None:
        """Listen again, on the same port."""
        self._reach(lambda bench: bench.door.open())

    def block(self, reason: str = "low on memory") -> None:
        """Hold publishers back: each is told so (connection.blocked) when it next publishes, and not read any more."""
        if not reason:
            raise ValueError("publishers are told a reason, so it must not be empty")
        self._reach(lambda bench: bench.hold_publishers(reason))

    def unblock(self) -> None:
        """Let publishers go on (connection.unblocked)."""
        self._reach(lambda bench: bench.hold_publishers(""))

    def fail_next_publish(
        self,
        how: How = "nack",
        *,
        times: int = 1,
        exchange: str | None = None,
        routing_key: str | None = None,
        reply_code: int = 406,
        reply_text: str = "a test wants this publish to fail",
    ) -> None:
        """See Vhost.fail_next_publish; for any virtual host."""
        fault = Fault(how, times, None, exchange, routing_key, reply_code, reply_text)
        self._reach(lambda bench: bench.publishes.plan(fault))

    def restore(self) -> None:
        """Undo what was done to it: accept connections, let publishers go on, forget publishes that were to fail."""
        self._reach(lambda bench: bench.restore())


class Broker(Handle):
    """A broker in this event loop; made by `broker`. All of `RunningBroker`, of which two are asynchronous here."""

    def __init__(self, reach: _Here, settings: Settings) -> None:
        super().__init__(reach, settings)
        self.bench = reach.bench

    async def advance(self, time: float | timedelta) -> None:
        """Let so much time (in seconds) pass for queues, messages and consumers, and none for anybody else.

        When this returns everything that was due has happened, in order and each at its time, and has been sent.
        """
        await self.bench.advance(milliseconds(time))

    async def wait_until(self, true: Callable[[], object], within: float = PATIENCE_SECONDS) -> None:
        """Let clients go on until this is true. AssertionError: it is not, so many seconds later."""
        with trio.move_on_after(within):
            while not true():  # noqa: ASYNC110 (what is waited for may be anything)
                await trio.sleep(PAUSE_SECONDS)
            return
        raise AssertionError(f"it did not come true within {within} s")


class _Here:
    """See Reach: straight."""

    def __init__(self, bench: Bench, settings: Settings) -> None:
        self.bench = bench
        self.host, self.port = bench.door.host, bench.door.port
        self.user, self.password = settings.default_user, settings.default_pass

    def __call__(self, what: Callable[[Bench], T]) -> T:
        self.bench.look()
        return what(self.bench)


@asynccontextmanager
async def broker(
    *, host: str = "127.0.0.1", port: int = 0, data_dir: str = "", frozen: bool = False, **settings: Any
) -> AsyncIterator[Broker]:
    """A broker on `port`, or on any free one, as long as the block.

    It keeps nothing on disk without a `data_dir`. With `frozen` time stands still unless it is advanced. `settings` are
    those of docs/CONFIGURATION.md. ListenError: the port is taken. SettingError, TypeError: there is no such setting.
    """
    values = Settings(**{**_SETTINGS, "data_dir": data_dir, **({"heartbeat_seconds": 0} if frozen else {}), **settings})
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            bench, stop = await _start(nursery, values, (host, port), MovableClock(frozen=frozen))
            try:
                yield Broker(_Here(bench, values), values)
            except Exception as error:  # noqa: BLE001 (the block's own: it leaves when the broker has stopped)
                failure = error
            finally:
                bench.door.close()
            stop.set()
    except BaseExceptionGroup as group:
        raise _only(group) from None
    if failure is not None:
        raise failure


async def _start(
    nursery: trio.Nursery, settings: Settings, address: tuple[str, int], clock: MovableClock
) -> tuple[Bench, trio.Event]:
    nodes: list[Node] = []
    ready, stop = trio.Event(), trio.Event()
    log, lines = captured_log(settings.log_level)

    def started(node: Node, _: list[str]) -> None:
        nodes.append(node)
        ready.set()

    async def serve() -> None:
        await run(settings, started, stop, listen=False, clock=clock, log=log)

    nursery.start_soon(serve)
    await ready.wait()
    (node,) = nodes
    door = Door(*address, settings.listen_backlog, nursery, node.welcome)
    door.open()
    return Bench(node, door, clock, lines), stop


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception in a group; the group where there are several."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
