"""A client's connection, brought from the node where it came in to the leader: a link that turns into the client's own.

    mirror: greeting, RELAY (whose connection it is)      leader: greeting, RELAY-ANSWER (taken, or why not)

and then bytes as the client and the broker say them, TLS and all. What a relay says about the client is believed, since
who knows the cluster's secret is a node of it.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Awaitable, Callable

import trio

from rabbitish.cluster.protocol.frames import (
    HEAD,
    FrameDecoder,
    LinkError,
    Relay,
    RelayAnswer,
    Verdict,
    encode_frame,
)
from rabbitish.cluster.protocol.greeting import NONCE_BYTES, Greeting, Refused
from rabbitish.cluster.wire import LinkStream, Secure, secured_by

READ_BYTES = 256 * 1024
BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
_DIAL_SECONDS = 2
_LONGEST_ANSWER = 4096
_NO_LIMIT = 0x7FFF_FFFF

TakeRelay = Callable[[trio.abc.Stream, Relay], Awaitable[None]]
"""What becomes of a connection that begins with RELAY; it may take the socket out of the stream."""


class RelayFailed(Exception):
    """Nobody took it, and why; `final`: it is no use to ask again."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


async def greet(stream: trio.abc.Stream, secret: bytes, *, dials: bool) -> bytes:
    """Greet the node at the other end; the bytes that came behind its greeting.

    Refused: it is no node of this cluster. BrokenResourceError: it hung up.
    """
    greeting = Greeting(secret, secrets.token_bytes(NONCE_BYTES), dials=dials)
    await stream.send_all(greeting.begin())
    while not greeting.done:
        data = await stream.receive_some(READ_BYTES)
        if not data:
            raise trio.BrokenResourceError("the peer hung up before it had greeted")
        await stream.send_all(greeting.receive(bytes(data)))
    return greeting.rest


async def open_relay(address: tuple[str, int], secret: bytes, relay: Relay, secure: Secure | None = None) -> LinkStream:
    """Bring a client to the node at an address; what is sent over the stream from now on is the client's.

    RelayFailed: that node is not there, or does not take it.
    """
    stream: LinkStream | None = None
    try:
        with trio.fail_after(_DIAL_SECONDS):
            stream = dialled = await trio.open_tcp_stream(*address)
            stream, proved = await secured_by(secure, dialled, secret, dials=True)
            await greet(stream, proved, dials=True)
            await stream.send_all(encode_frame(relay))
            answer = await _answer(stream)
        if answer.verdict is Verdict.TAKEN:
            if isinstance(stream, trio.SocketStream):
                unlimit(stream)
            taken, stream = stream, None
            return taken
        raise RelayFailed(answer.reason, final=answer.verdict is Verdict.REFUSED)
    except (Refused, LinkError, *BROKEN) as error:
        reason = str(error) or type(error).__name__
        raise RelayFailed(
            f"{address[0]}:{address[1]}: {reason}", final=isinstance(error, (Refused, LinkError))
        ) from error
    finally:
        if stream is not None:
            await trio.aclose_forcefully(stream)


async def _answer(stream: LinkStream) -> RelayAnswer:
    """The answer and not a byte more: what follows is for the client."""
    head = await _exactly(stream, HEAD.size)
    size, _ = HEAD.unpack(head)
    if size > _LONGEST_ANSWER:
        raise LinkError(f"an answer of {size} bytes to a RELAY")
    (frame,) = FrameDecoder().feed(head + await _exactly(stream, size))
    if not isinstance(frame, RelayAnswer):
        raise LinkError("no answer to a RELAY")
    return frame


async def _exactly(stream: LinkStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        if not piece:
            raise trio.BrokenResourceError("it hung up before it had answered")
        data += piece
    return data


async def answer_relay(stream: trio.abc.Stream, verdict: Verdict, reason: str = "") -> None:
    """Say what becomes of a client that was brought."""
    await stream.send_all(encode_frame(RelayAnswer(verdict, reason)))


def take_socket(stream: trio.abc.Stream) -> socket.socket:
    """The socket of a stream, which is an empty shell from then on. Nobody may be waiting for it."""
    assert isinstance(stream, trio.SocketStream)
    unlimit(stream)
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return sock


def unlimit(stream: trio.SocketStream) -> None:
    """Let the kernel have as much unsent as it likes: trio's limit is for who decides late what to send."""
    if hasattr(trio.socket, "TCP_NOTSENT_LOWAT"):
        stream.setsockopt(socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, _NO_LIMIT)
