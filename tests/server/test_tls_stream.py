"""A TlsSocket as a stream: whatever is broken off, nothing is lost and nothing comes twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
import trio.testing

from rabbitish.server.tls_stream import TlsStream

from .test_tls_socket import BODY, Pair
from .tls import TLS_1_2, TLS_1_3


@pytest.fixture(params=[TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(request.param)
    yield pair
    pair.wire.close()


async def break_off(what: Callable[[], Awaitable[None]]) -> None:
    """Do something until it cannot go on."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(what)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


def test_sending_that_is_broken_off_again_and_again(pair: Pair) -> None:
    async def main() -> None:
        async with TlsStream(pair.tls) as stream:
            rest, heard, turns = memoryview(BODY), bytearray(), 0

            async def send() -> None:
                nonlocal rest
                while rest:
                    sent = await stream.send_some(rest)
                    rest = rest[sent:]

            while rest or len(heard) < len(BODY):
                await break_off(send)
                heard += pair.hear(200_000)
                turns += bool(rest)
            assert heard == BODY
            assert turns > 5

    trio.run(main)


class Cancelling:
    """A TlsSocket under whose user a scope is cancelled at the very moment that something is done."""

    def __init__(self, pair: Pair, scope: trio.CancelScope) -> None:
        self._tls = pair.tls
        self._scope = scope
        self.raw = pair.tls.raw

    def send(self, data: bytes) -> int:
        self._scope.cancel()
        return self._tls.send(data)

    def recv(self, size: int) -> bytes:
        self._scope.cancel()
        return self._tls.recv(size)


def test_who_is_cancelled_when_it_is_done_is_told_what_was_done(pair: Pair) -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            assert await TlsStream(Cancelling(pair, scope)).send_some(b"hello") == 5  # type: ignore[arg-type]
        assert scope.cancel_called and not scope.cancelled_caught
        assert pair.hear() == b"hello"
        pair.wire.send(pair.say(b"hello"))
        with trio.CancelScope() as scope:
            assert await TlsStream(Cancelling(pair, scope)).receive_some() == b"hello"  # type: ignore[arg-type]
        assert scope.cancel_called and not scope.cancelled_caught
        pair.tls.close()

    trio.run(main)


def test_sending_all(pair: Pair) -> None:
    async def main() -> None:
        async with TlsStream(pair.tls) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, BODY)
            heard = bytearray()
            while len(heard) < len(BODY):
                await trio.lowlevel.wait_readable(pair.wire)
                heard += pair.hear(200_000)
            assert heard == BODY

    trio.run(main)


def test_receiving_no_more_than_is_asked_for_and_losing_nothing(pair: Pair) -> None:
    async def main() -> None:
        async with TlsStream(pair.tls) as stream:
            got: list[bytes] = []

            async def receive() -> None:
                while True:
                    got.append(await stream.receive_some(5))

            for words in (b"hello world", b"again"):
                await break_off(receive)
                pair.wire.send(pair.say(words))
            await break_off(receive)
            assert got == [b"hello", b" worl", b"d", b"again"]
            pair.wire.send(pair.say(b"bye") + pair.goodbye())
            assert [await stream.receive_some() for _ in range(3)] == [b"bye", b"", b""]

    trio.run(main)


def test_after_taking_leave_only_the_end_is_waited_for(pair: Pair) -> None:
    async def main() -> None:
        async with TlsStream(pair.tls) as stream:
            await stream.send_all(b"last words")
            await stream.send_eof()
            assert pair.hear() == b"last words"
            pair.hear_to_the_end()
            pair.wire.send(b"what is no TLS any more")
            assert await stream.receive_some()
            pair.wire.close()
            assert await stream.receive_some() == b""

    trio.run(main)
