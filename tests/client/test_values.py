"""Small pure things: serialisers and messages, x-arguments, topology, the pauses between attempts."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rabbitish.client import (
    JSON,
    Message,
    Reconnect,
    consumer_arguments,
    exchange_arguments,
    queue_arguments,
)
from rabbitish.client.errors import PublishReturned, PublishUnconfirmed, channel_closed
from rabbitish.client.protocol.content import Serialisers
from rabbitish.client.protocol.topology import Topology
from rabbitish.wire import methods
from rabbitish.wire.properties import Properties, decode_properties


class Pickle:
    content_type = "application/x-pickle"

    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value)

    def loads(self, body: bytes) -> Any:
        return pickle.loads(body)


def test_a_value_is_written_and_read_by_its_type() -> None:
    known = Serialisers()
    for value, body, content_type in (
        (b"\xff", b"\xff", None),
        (bytearray(b"1"), b"1", None),
        ("ä", "ä".encode(), "text/plain"),
        ({"a": [1, None, "ä"]}, '{"a":[1,null,"ä"]}'.encode(), "application/json"),
        (7, b"7", "application/json"),
    ):
        assert known.dumps(value, None) == (body, content_type)
        assert known.loads(body, content_type) == value
    assert known.dumps("x", "application/json") == (b'"x"', "application/json")
    assert known.dumps(b"x", "image/png") == (b"x", "image/png")
    assert known.loads(b"1", "Application/JSON; charset=utf-8") == 1
    with pytest.raises(LookupError, match="image/png"):
        known.loads(b"x", "image/png")
    with pytest.raises(LookupError):
        known.dumps("x", "image/png")
    with pytest.raises(TypeError):
        known.dumps({1, 2}, None)


def test_a_serialiser_of_the_programs_own_is_for_everything_but_bytes_and_text() -> None:
    known = Serialisers([Pickle()])
    body, content_type = known.dumps({1, 2}, None)
    assert content_type == "application/x-pickle"
    assert known.loads(body, content_type) == {1, 2}
    assert known.dumps("x", None) == (b"x", "text/plain")
    assert known.loads(b"[]", JSON.content_type) == []


def test_a_messages_properties() -> None:
    known = Serialisers()
    raw, body = Message("x").encode(known)
    assert (decode_properties(raw), body) == (Properties(content_type="text/plain", delivery_mode=2), b"x")
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    raw, _ = Message(
        b"", delivery_mode=None, expiration=timedelta(seconds=1.5), timestamp=moment, headers={"h": 1}, priority=0
    ).encode(known)
    assert decode_properties(raw) == Properties(
        expiration="1500", timestamp=int(moment.timestamp()), headers={"h": 1}, priority=0
    )
    raw, _ = Message(b"", content_encoding="gzip", expiration=5, timestamp=6, user_id="u").encode(known)
    assert decode_properties(raw) == Properties(
        content_encoding="gzip", expiration="5", timestamp=6, user_id="u", delivery_mode=2
    )
    with pytest.raises(ValueError):
        Message(b"", message_id="x" * 256).encode(known)


def test_arguments_have_their_names() -> None:
    assert queue_arguments() == {}
    assert queue_arguments(
        message_ttl=timedelta(minutes=1),
        expires=5,
        max_length=1,
        max_length_bytes=2,
        overflow="drop-head",
        dead_letter_exchange="",
        dead_letter_routing_key="k",
        max_priority=3,
        single_active_consumer=False,
        queue_mode="lazy",
        queue_type="classic",
        delivery_limit=4,
        more={"x-mine": 1},
    ) == {
        "x-message-ttl": 60_000,
        "x-expires": 5,
        "x-max-length": 1,
        "x-max-length-bytes": 2,
        "x-overflow": "drop-head",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "k",
        "x-max-priority": 3,
        "x-single-active-consumer": False,
        "x-queue-mode": "lazy",
        "x-queue-type": "classic",
        "x-delivery-limit": 4,
        "x-mine": 1,
    }
    assert exchange_arguments(alternate_exchange="a", more={"x": 1}) == {"alternate-exchange": "a", "x": 1}
    assert consumer_arguments(priority=-1) == {"x-priority": -1}


def test_what_is_declared_is_remembered_until_it_is_deleted() -> None:
    topology = Topology()
    topology.note(methods.ExchangeDeclare(exchange="e"))
    topology.note(methods.ExchangeDeclare(exchange="f"))
    topology.note(methods.ExchangeDeclare(exchange="p", passive=True))
    topology.note(methods.QueueDeclare(), "amq.gen-1")
    topology.note(methods.QueueDeclare(queue="q"), "q")
    topology.note(methods.QueueDeclare(queue="p", passive=True), "p")
    topology.note(methods.QueueBind(queue="amq.gen-1", exchange="e", routing_key="1"))
    topology.note(methods.QueueBind(queue="q", exchange="e", routing_key="2"))
    topology.note(methods.QueueBind(queue="q", exchange="f", routing_key="3", arguments={"a": 1}))
    topology.note(methods.ExchangeBind(destination="f", source="e", routing_key="4"))
    assert [name for name, _ in topology.declarations()] == ["e", "f", "amq.gen-1", "q"]
    topology.rename("amq.gen-1", "amq.gen-2")
    assert "amq.gen-2" in topology.queues
    assert [method.routing_key for method in topology.bindings.values()] == ["1", "2", "3", "4"]
    first = next(iter(topology.bindings.values()))
    assert isinstance(first, methods.QueueBind)
    assert first.queue == "amq.gen-2"
    topology.note(methods.QueueUnbind(queue="q", exchange="f", routing_key="3"))
    assert len(topology.bindings) == 4
    topology.note(methods.QueueUnbind(queue="q", exchange="f", routing_key="3", arguments={"a": 1}))
    topology.note(methods.QueueDelete(queue="amq.gen-2"))
    assert [method.routing_key for method in topology.bindings.values()] == ["2", "4"]
    topology.note(methods.ExchangeUnbind(destination="f", source="e", routing_key="4"))
    topology.note(methods.ExchangeDelete(exchange="e"))
    assert topology.bindings == {}
    assert [name for name, _ in topology.declarations()] == ["f", "q"]


def test_pauses_grow_are_jittered_and_end() -> None:
    exact = Reconnect(pause=1, factor=3, longest=5, jitter=0, attempts=5)
    assert list(exact.pauses()) == [1, 3, 5, 5]
    assert list(Reconnect(attempts=1).pauses()) == []
    jittered = [next(iter(Reconnect(pause=1, jitter=0.5).pauses())) for _ in range(50)]
    assert all(0.5 <= pause <= 1 for pause in jittered)
    assert len(set(jittered)) > 1


def test_an_error_can_be_raised_again_and_again() -> None:
    error = PublishReturned(312, "NO_ROUTE", "e", "k")
    other = error.again()
    assert other is not error
    assert str(other) == str(error) == "312 NO_ROUTE: exchange 'e', routing key 'k'"
    unconfirmed = PublishUnconfirmed()
    unconfirmed.__cause__ = error
    assert unconfirmed.again().__cause__ is error
    assert type(channel_closed(541, "x")).__name__ == "ChannelClosed"
