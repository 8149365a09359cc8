"""The socket below a link on TLS: what is sent arrives once and in order however little the kernel takes."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import ssl
from collections.abc import Iterator

import pytest

from rabbitish.config import Settings
from rabbitish.server.certificates import read_context
from rabbitish.server.tls import TlsSocket

from .tls import HOST, TLS_1_2, TLS_1_3, pki

BODY = random.Random(1).randbytes(3_000_000)


class Pair:
    """A broker's end, and a client whose bytes are carried by hand; the handshake is done."""

    def __init__(self, version: ssl.TLSVersion) -> None:
        near, self.wire = socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
        near.setblocking(False)
        self.wire.setblocking(False)
        server = read_context(Settings(ssl_options_certfile=pki().certfile, ssl_options_keyfile=pki().keyfile))
        client = pki().client()
        client.maximum_version = version
        self._heard, self._said = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self._heard, self._said, server_hostname=HOST)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = server.wrap_bio(incoming, outgoing, server_side=True)
        for _ in range(6):
            for side in (self.client, tls):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
            incoming.write(self._said.read())
            self._heard.write(outgoing.read())
        self.tls = TlsSocket(near, tls, incoming, outgoing)

    def send(self, data: bytes) -> int:
        """What the broker got rid of."""
        try:
            return self.tls.send(data)
        except BlockingIOError:
            return 0

    def say(self, *parts: bytes) -> bytes:
        """What the client sends for these, each a record or more."""
        for part in parts:
            while part:
                part = part[self.client.write(part) :]
        return self._said.read()

    def goodbye(self) -> bytes:
        """The client's close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.client.unwrap()
        return self._said.read()

    def hear(self, size: int = 1 << 20) -> bytes:
        """What the client gets of the next so many bytes on the wire; empty at close_notify."""
        with contextlib.suppress(BlockingIOError):
            self._heard.write(self.wire.recv(size))
        heard = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while part := self.client.read(1 << 16):
                heard += part
        return heard

    def hear_to_the_end(self) -> None:
        """SSLEOFError: the connection ends without close_notify."""
        while data := self.wire.recv(1 << 20):
            self._heard.write(data)
        self._heard.write_eof()
        while self.client.read(1 << 16):
            pass

    @property
    def readable(self) -> bool:
        return bool(select.select([self.tls], [], [], 0)[0])


@pytest.fixture(params=[TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(request.param)
    yield pair
    pair.tls.close()
    pair.wire.close()


# --- In ---------------------------------------------------------------------------------------------------------------


def test_many_records_in_one_read(pair: Pair) -> None:
    parts = [b"x" * size for size in (1, 50, 20_000, 3)]
    pair.wire.send(pair.say(*parts))
    assert pair.tls.recv(1 << 17) == b"".join(parts)
    with pytest.raises(BlockingIOError):
        pair.tls.recv(1 << 17)


def test_a_record_in_pieces(pair: Pair) -> None:
    said = pair.say(b"hello") + pair.say(b"again")
    got = b""
    for place in range(len(said)):
        pair.wire.send(said[place : place + 1])
        with contextlib.suppress(BlockingIOError):
            got += pair.tls.recv(1 << 17)
            assert got in (b"hello", b"helloagain")
    assert got == b"helloagain"


def test_the_end_after_the_last_words_shows(pair: Pair) -> None:
    """Both came in one read, so the selector must tell of the end although nothing more comes."""
    pair.wire.send(pair.say(b"last words") + pair.goodbye())
    assert pair.tls.recv(1 << 17) == b"last words"
    assert pair.readable
    assert pair.tls.recv(1 << 17) == b""
    assert pair.tls.recv(1 << 17) == b""


def test_an_end_without_goodbye(pair: Pair) -> None:
    pair.wire.send(pair.say(b"last words") + pair.say(b"more")[:-1])
    assert pair.tls.recv(1 << 17) == b"last words"
    pair.wire.shutdown(socket.SHUT_WR)
    assert pair.readable
    assert pair.tls.recv(1 << 17) == b""


def test_nonsense_is_the_end_and_an_alert(pair: Pair) -> None:
    broken = bytearray(pair.say(b"changed on the way"))
    broken[-1] ^= 1
    pair.wire.send(pair.say(b"") + bytes(broken))
    assert pair.tls.recv(1 << 17) == b""
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        pair.hear()


def test_what_was_said_after_goodbye_is_not_heard(pair: Pair) -> None:
    pair.wire.send(pair.goodbye() + b"plain text")
    assert pair.tls.recv(1 << 17) == b""


# --- Out --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 1000, 20_000, 300_000, len(BODY)])
def test_what_is_sent_arrives_once_and_in_order(pair: Pair, most: int) -> None:
    """As Link does: first what is new, then the rest of it until all is gone."""
    body = BODY[: most * 2000]
    heard, place = b"", 0
    while place < len(body):
        rest = memoryview(body)[place : place + most]
        place += len(rest)
        while rest:
            try:
                sent = pair.tls.send(rest)
                assert sent
                rest = rest[sent:]
            except BlockingIOError:
                part = pair.hear(10_000)
                heard += part
    for _ in range(1000):
        heard += pair.hear(10_000)
        if len(heard) >= len(body):
            break
    assert heard == body


def test_nothing_counts_as_sent_before_the_kernel_has_it(pair: Pair) -> None:
    sent = pair.send(BODY)
    assert sent < len(BODY)
    with pytest.raises(BlockingIOError):
        pair.tls.send(memoryview(BODY)[sent:])
    heard = b""
    while part := pair.hear():
        heard += part
    assert len(heard) >= sent
    assert BODY.startswith(heard)


def test_many_parts_are_one_record(pair: Pair) -> None:
    parts = [b"a", b"", b"bc", b"d" * 100]
    assert pair.tls.sendmsg(parts) == 103
    assert len(pair.wire.recv(1 << 16, socket.MSG_PEEK)) < 103 + 60
    assert pair.hear() == b"".join(parts)


def test_hearing_while_much_is_unsent(pair: Pair) -> None:
    sent = pair.send(BODY)
    pair.wire.send(pair.say(b"go on"))
    assert pair.tls.recv(1 << 17) == b"go on"
    pair.wire.send(pair.goodbye())
    assert pair.tls.recv(1 << 17) == b""
    heard = pair.hear(1 << 22)
    rest = memoryview(BODY)[sent:]
    while rest:
        with contextlib.suppress(BlockingIOError):
            rest = rest[pair.tls.send(rest) :]
        heard += pair.hear(1 << 22)
    assert heard + pair.hear(1 << 22) == BODY


def test_closing_says_goodbye(pair: Pair) -> None:
    pair.tls.send(b"last words")
    pair.tls.close()
    assert pair.hear() == b"last words"
    pair.hear_to_the_end()


def test_closing_in_the_middle_says_nothing_that_could_be_taken_for_an_end(pair: Pair) -> None:
    pair.send(BODY)
    pair.tls.close()
    with pytest.raises(ssl.SSLEOFError):
        pair.hear_to_the_end()


def test_a_peer_that_is_gone_is_an_error(pair: Pair) -> None:
    pair.wire.close()
    with pytest.raises(OSError):
        pair.tls.send(b"hello")
