"""What the client conversations share: the broker's address, waiting with deadlines, and a proxy that can cut.

Waiting is always for an event, with a deadline that fails the test; nothing sleeps for a time and hopes. What needs
tools outside Python goes through `missing`: a skip with its reason, or a failure where RABBITISH_REQUIRE_ALL=1 says
that everything is supposed to be installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import queue
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import IO, Any, NoReturn
from urllib.parse import quote, unquote, urlsplit

import pytest

DEADLINE = 10.0  # seconds; generous for one step of a conversation on a busy machine

UNICODE = "grüße, 世界, \N{RABBIT FACE}"
LARGE_SIZES = pytest.mark.parametrize("size", [1 << 20, 10 << 20], ids=["1MiB", "10MiB"])


def missing(reason: str) -> NoReturn:
    """Skip for `reason`, or fail with it where RABBITISH_REQUIRE_ALL=1."""
    if os.environ.get("RABBITISH_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason}, and RABBITISH_REQUIRE_ALL=1 lets nothing be missing")
    pytest.skip(reason)


def large_body(size: int) -> bytes:
    """`size` bytes without a short period, so that a lost or repeated frame shows."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4))


@dataclass(frozen=True, slots=True)
class Broker:
    """An address in the parts and in the one spelling of a URL that every client reads alike (vhost "/" as %2F)."""

    host: str
    port: int
    user: str
    password: str
    vhost: str

    @classmethod
    def parse(cls, url: str) -> Broker:
        parts = urlsplit(url)
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 5672,
            user=unquote(parts.username or "guest"),
            password=unquote(parts.password or "guest"),
            vhost=unquote(parts.path[1:]) or "/",
        )

    @property
    def url(self) -> str:
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"amqp://{login}@{self.host}:{self.port}/{quote(self.vhost, safe='')}"

    def at(self, port: int) -> Broker:
        """The same broker as seen through a proxy on `port`."""
        return Broker("127.0.0.1", port, self.user, self.password, self.vhost)


class Lines:
    """A child's output line by line, so that waiting for a line has a deadline."""

    def __init__(self, stream: IO[str]) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        self._thread = threading.Thread(target=self._pump, args=(stream,), daemon=True)
        self._thread.start()

    def _pump(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, text: str, timeout: float = DEADLINE) -> str:
        """The first line from here on that contains `text`."""
        while True:
            try:
                line = self._lines.get(timeout=timeout)
            except queue.Empty:
                pytest.fail(f"no line with {text!r} within {timeout} s; so far: {self.seen}")
            if line is None:
                pytest.fail(f"output ended without a line with {text!r}; it was: {self.seen}")
            self.seen.append(line)
            if text in line:
                return line

    def finish(self) -> None:
        """Print what is left once the child has ended: captured, and shown when a test has failed."""
        self._thread.join(DEADLINE)
        print(*self.seen, *iter(self._lines.get_nowait, None), sep="\n")


def end_process(process: subprocess.Popen[str], timeout: float = DEADLINE) -> int:
    """SIGTERM to this one process and its exit code; SIGKILL and a failure if it will not go."""
    process.terminate()
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        pytest.fail(f"process {process.args} did not end within {timeout} s of SIGTERM")


class Proxy:
    """A TCP relay to the broker whose connections a test can cut, as a failing network does.

    A new connection is relayed again, so clients that reconnect find the broker at the same address.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    near, _ = self._listener.accept()
                except OSError:
                    return  # close() ended the listener
                thread = threading.Thread(target=self._serve, args=(near,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.create_connection(self._target) as far:
            with self._lock:
                self._open += [near, far]
            back = threading.Thread(target=self._relay, args=(far, near), daemon=True)
            back.start()
            self._relay(near, far)
            back.join()
            with self._lock:
                self._open = [end for end in self._open if end not in (near, far)]

    @staticmethod
    def _relay(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break every connection that stands now; no AMQP close is said to either side."""
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(DEADLINE)
        self.cut()
        for thread in self._threads:
            thread.join(DEADLINE)


def in_asyncio(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test from a coroutine function, on a loop of its own, ended where it hangs."""

    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(2 * DEADLINE):
                await test(*args, **fixtures)

        asyncio.run(bounded())

    return run
