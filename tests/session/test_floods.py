"""Bad input that is too much: too deep, too large, too many, too slow."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitish.core.queue import HANDFUL_BYTES
from rabbitish.values import Table
from rabbitish.wire import methods
from rabbitish.wire.frames import HEAD, content_frames
from rabbitish.wire.table import encode_table

from .client import publication, start_ok
from .fuzzing import KIB, LOGIN, Stage


def nested(depth: int, array: bool) -> Table:
    value: Any = 1
    for _ in range(depth):
        value = [value] if array else {"n": value}
    return {"n": value}


def encoded_nested(depth: int, array: bool) -> bytes:
    """Deeper than what our own encoder is willing to write."""
    raw = b"I\0\0\0\1"
    for _ in range(depth):
        inner = raw if array else b"\1n" + raw
        raw = (b"A" if array else b"F") + len(inner).to_bytes(4, "big") + inner
    raw = b"\1n" + raw
    return len(raw).to_bytes(4, "big") + raw


@pytest.mark.parametrize("depth", [1, 50, 99, 100, 101, 500, 10_000])
@pytest.mark.parametrize("array", [False, True])
def test_deep_tables(depth: int, array: bool) -> None:
    table = encoded_nested(depth, array)
    if depth == 50:
        assert table == encode_table(nested(depth, array))
    stage = Stage()
    declare = methods.QueueDeclare(queue="q").encode()[:-4] + table
    stage.bad.raw(methods.ChannelOpen().frame(1) + HEAD.pack(1, 1, len(declare)) + declare + b"\xce")
    bind = methods.QueueBind(queue="q", exchange="amq.headers").encode()[:-4] + table
    stage.bad.raw(HEAD.pack(1, 1, len(bind)) + bind + b"\xce")
    for key in ("q", "dead"):
        stage.bad.raw(publication(key, b"x", properties=b"\x20\0" + table, exchange="amq.headers"))
    stage.end()
    stage = Stage(1)
    login = start_ok("guest", "guest").encode()
    login = login[:4] + table + login[8:]
    stage.bad.raw(HEAD.pack(1, 0, len(login)) + login + b"\xce")
    stage.end()


@pytest.mark.parametrize("kind", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("size", [131_064, 131_065, 131_072, 131_073, 1 << 31, (1 << 32) - 1])
def test_oversized_frames(kind: int, size: int) -> None:
    stage = Stage()
    stage.bad.raw(methods.ChannelOpen().frame(1) + HEAD.pack(kind, 1, size))
    for _ in range(20):
        stage.bad.raw(bytes(20_000))
    assert sum(map(len, (stage.bad.session.parser.data,))) < 300_000
    stage.end()


def test_a_flood_of_channels() -> None:
    stage = Stage()
    for first in range(1, 60_000, 500):
        stage.bad.raw(b"".join(methods.ChannelOpen().frame(number) for number in range(first, first + 500)))
    assert len(stage.bad.session.channels) == 0, "one too many costs them all"
    stage.end()


@pytest.mark.parametrize(
    "said",
    [
        methods.QueueDeclare(queue="q" * 255).frame(1),
        methods.BasicGet(queue="large").frame(1),
        methods.BasicQos(prefetch_count=1).frame(1),
        methods.BasicRecover(requeue=True).frame(1),
        publication("nowhere", bytes(10 * KIB), mandatory=True),
        publication("large", bytes(10 * KIB)),
        methods.ConnectionUpdateSecret().frame(0),
        methods.BasicConsume(queue="large", no_ack=True).frame(1),
    ],
    ids=["declare", "get", "qos", "recover", "return", "publish", "secret", "consume"],
)
def test_one_that_never_reads(said: bytes) -> None:
    """Its outbox grows to a few times the high mark, and then it is not read from any more."""
    stage = Stage()
    stage.good.declare("large")
    stage.good.publish("large", *[bytes(5 * KIB)] * 400)
    stage.bad.send(methods.ChannelOpen(), methods.BasicConsume(queue="large"))
    stage.world.settle()
    stage.bad.reading = False
    for _ in range(20):
        stage.bad.raw(said * 100 if len(said) < KIB else said * 10)
        stage.world.settle()
    session = stage.bad.session
    assert session.outbox.size <= 4 * stage.world.settings.outbox_bytes_high + HANDFUL_BYTES
    assert len(session.outbox.waiters) < 4000
    stage.end()


def test_bodies_that_never_end() -> None:
    stage = Stage()
    stage.bad.raw(b"".join(methods.ChannelOpen().frame(number) for number in range(1, 1000)))
    for number in range(1, 1000):
        header = content_frames(number, 60, b"\0\0", bytes(100 * KIB), 131_072)[:22]
        stage.bad.raw(methods.BasicPublish().frame(number) + header)
    assert stage.bad.session.state == "closing"
    assert stage.world.hub.partial_bytes == 0
    stage.end()


def test_many_half_open_peers() -> None:
    stage = Stage()
    for number in range(500):
        client = stage.world.connect()
        client.raw(b"".join(LOGIN)[: number % 80])
    assert len(stage.world.hub.sessions) == 502
    stage.world.advance(10_000)
    assert len(stage.world.hub.sessions) == 2
    stage.end()


def test_the_measure_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of this would notice if we were at fault."""
    stage = Stage()
    monkeypatch.delattr("rabbitish.session.channel.Channel.wake_consumers")
    stage.bad.send(methods.ChannelOpen(), methods.BasicQos())
    with pytest.raises(AssertionError):
        stage.end()
