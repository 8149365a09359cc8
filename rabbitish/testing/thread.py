"""A broker for programs that are not trio's: it runs in a thread of its own, and any thread may use it.

Whatever a test asks is handed to the broker's event loop and done there between two of its own steps; the asking thread
waits for the answer, which takes well under a millisecond, so an asyncio or trio program may ask as well. The broker
never waits for whoever asks. It does not touch signal handlers: in a thread trio leaves them alone.
"""

from __future__ import annotations

import os
import threading
import time as clock
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import trio

from rabbitish.config import Settings
from rabbitish.testing.bench import Bench
from rabbitish.testing.clock import milliseconds
from rabbitish.testing.loop import PATIENCE_SECONDS, PAUSE_SECONDS, Broker, Handle, broker

T = TypeVar("T")

# How often a thread that waits for an answer makes sure that somebody is there to give one.
_SURE_SECONDS = 1.0


class RunningBroker(Handle):
    """A broker in a thread of its own, to be used from any thread; made by `running_broker`.

    RuntimeError from anything that is asked of it: it has stopped, or this is a fork of its process.
    """

    _reach: _Across

    def __init__(self, reach: _Across, settings: Settings) -> None:
        super().__init__(reach, settings)

    def advance(self, time: float | timedelta) -> None:
        """Let so much time (in seconds) pass for queues, messages and consumers, and none for anybody else.

        When this returns everything that was due has happened, in order and each at its time, and has been sent.
        """
        self._reach.wait_for(partial(Bench.advance, ms=milliseconds(time)))

    def wait_until(self, true: Callable[[], object], within: float = PATIENCE_SECONDS) -> None:
        """Wait until this is true. AssertionError: it is not, so many seconds later."""
        end = clock.monotonic() + within
        while not true():
            if clock.monotonic() > end:
                raise AssertionError(f"it did not come true within {within} s")
            clock.sleep(PAUSE_SECONDS)


class _Across:
    """See Reach: from another thread."""

    def __init__(self, bench: Bench, settings: Settings, token: trio.lowlevel.TrioToken) -> None:
        self._bench = bench
        self._token = token
        self._process = os.getpid()
        self.thread: threading.Thread
        self.host, self.port = bench.door.host, bench.door.port
        self.user, self.password = settings.default_user, settings.default_pass

    def __call__(self, what: Callable[[Bench], T]) -> T:
        answer: Future[T] = Future()

        def do() -> None:
            try:
                self._bench.look()
                answer.set_result(what(self._bench))
            except BaseException as error:  # noqa: BLE001 (whoever asked gets it)
                answer.set_exception(error)

        return self._ask(do, answer)

    def wait_for(self, what: Callable[[Bench], Awaitable[None]]) -> None:
        """The same for what takes its time."""
        answer: Future[None] = Future()

        async def do() -> None:
            try:
                await what(self._bench)
                answer.set_result(None)
            except Exception as error:  # noqa: BLE001 (whoever asked gets it)
                answer.set_exception(error)

        self._ask(lambda: self._bench.node.nursery.start_soon(do), answer)

    def _ask(self, do: Callable[[], object], answer: Future[T]) -> T:
        if os.getpid() != self._process:
            raise RuntimeError("this is a fork of the process that runs the broker: only its URL is of use here")
        try:
            self._token.run_sync_soon(do)
        except trio.RunFinishedError:
            raise RuntimeError("the broker has stopped") from None
        while True:
            try:
                return answer.result(_SURE_SECONDS)
            except TimeoutError:
                if answer.done():
                    raise
                if not self.thread.is_alive():
                    raise RuntimeError("the broker has stopped") from None


class _Thread:
    """The thread: starts a broker, tells of it or of why there is none, and runs it until it is to stop."""

    def __init__(self, **options: Any) -> None:
        self.started: Future[tuple[Broker, trio.lowlevel.TrioToken, trio.Event]] = Future()
        self.failure: BaseException | None = None
        self._options = options
        # A daemon: a test program that is killed half way must not wait for it.
        self.thread = threading.Thread(target=self._run, name="rabbitish", daemon=True)

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001 (whoever started the thread gets it)
            self.failure = error
            if not self.started.done():
                self.started.set_exception(error)

    async def _serve(self) -> None:
        stop = trio.Event()
        async with broker(**self._options) as running:
            self.started.set_result((running, trio.lowlevel.current_trio_token(), stop))
            await stop.wait()


@contextmanager
def running_broker(
    *, host: str = "127.0.0.1", port: int = 0, data_dir: str = "", frozen: bool = False, **settings: Any
) -> Iterator[RunningBroker]:
    """A broker in a thread of its own; options and errors are those of `rabbitish.testing.broker`."""
    runner = _Thread(host=host, port=port, data_dir=data_dir, frozen=frozen, **settings)
    runner.thread.start()
    started, token, stop = runner.started.result()
    reach = _Across(started.bench, started.bench.node.settings, token)
    reach.thread = runner.thread
    try:
        yield RunningBroker(reach, started.bench.node.settings)
    finally:
        if runner.thread.is_alive():
            token.run_sync_soon(stop.set)
        runner.thread.join()
    if runner.failure is not None:
        raise runner.failure
