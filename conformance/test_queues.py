"""Queues: names, passive declare, exclusive, auto-delete, counts, purge, delete with conditions.

What a queue's arguments do is in other files; here are the flags and the methods of the queue class themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import Inbox, closes, counts, drain, get, locked, must_get, no_queue, publish, ready, sync
from conformance.rawpeer import RawPeer, raw_method, shortstr, table
from conformance.support import Names, eventually

Connect = Callable[..., pika.BlockingConnection]

NONE_DECLARED = "NOT_FOUND - no previously declared queue"


def _declare_frame(queue: str, passive: bool = False, exclusive: bool = False) -> bytes:
    """queue.declare by hand: pika waits for a declare-ok with just the name it sent."""
    return raw_method(1, 50, 10, b"\0\0" + shortstr(queue) + bytes([passive | exclusive << 2]) + table())


def _is_gone(connection: pika.BlockingConnection, queue: str) -> bool:
    """Fails, or is true when the queue is not there."""
    channel = connection.channel()
    with closes(channel, 404, no_queue(queue)):
        channel.queue_declare(queue, passive=True)
    return True


# --- names -----------------------------------------------------------------------------------------------------------


def test_server_named(channel: BlockingChannel) -> None:
    first, second = (channel.queue_declare("", exclusive=True).method.queue for _ in range(2))
    assert re.fullmatch(r"amq\.gen-[\w-]{22}", first)
    assert first != second


def test_server_named_can_be_declared_again_only_passively(channel: BlockingChannel) -> None:
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_declare(queue, passive=True)
    text = f"ACCESS_REFUSED - queue name '{queue}' contains reserved prefix 'amq.*'"
    with closes(channel, 403, text):
        channel.queue_declare(queue)


@pytest.mark.parametrize("queue", ["amq.", "amq.new", "amq.gen-mine", "amq.rabbitmq.x"])
def test_names_with_the_reserved_prefix(channel: BlockingChannel, queue: str) -> None:
    with closes(channel, 403, f"ACCESS_REFUSED - queue name '{queue}' contains reserved prefix 'amq.*'"):
        channel.queue_declare(queue)


@pytest.mark.parametrize("queue", ["amq", "AMQ.x", "a.amq."])
def test_names_that_only_look_reserved(channel: BlockingChannel, queue: str) -> None:
    assert channel.queue_declare(queue, exclusive=True).method.queue == queue


@pytest.mark.parametrize(
    "queue",
    ["cf ünï cödé ☃", "cf ~p ~s %s {0}", "cf '\"\\/", "cf\t\x00\x7f", "cf.*.#", " ", "cf" + "n" * 253, "é" * 127],
    ids=["unicode", "formats", "quotes", "controls", "wildcards", "space", "255 bytes", "254 bytes in 127 characters"],
)
def test_odd_names(channel: BlockingChannel, queue: str) -> None:
    assert channel.queue_declare(queue, exclusive=True).method.queue == queue
    publish(channel, queue, "m")
    assert drain(channel, queue) == ["m"]


def test_odd_name_in_a_text(channel: BlockingChannel) -> None:
    with closes(channel, 404, no_queue("☃ ~p ~s %s '")):
        channel.queue_declare("☃ ~p ~s %s '", passive=True)


def test_names_are_case_sensitive(channel: BlockingChannel, name: Names) -> None:
    queue = name("case")
    channel.queue_declare(queue)
    with closes(channel, 404, no_queue(queue.upper())):
        channel.queue_declare(queue.upper(), passive=True)


@pytest.mark.parametrize("passive", [False, True])
def test_cr_and_lf_are_stripped_by_declare(channel: BlockingChannel, peer: RawPeer, name: Names, passive: bool) -> None:
    queue = name()
    channel.queue_declare(queue)
    peer.send(_declare_frame(f"\r\n{queue[:3]}\n{queue[3:]}\r", passive))
    assert peer.expect(50, 11).queue == queue


def test_cr_and_lf_alone_ask_for_a_server_name(peer: RawPeer) -> None:
    peer.send(_declare_frame("\r\n", exclusive=True))
    assert peer.expect(50, 11).queue.startswith("amq.gen-")


def test_cr_and_lf_are_stripped_by_bind_and_delete(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    channel.queue_bind(queue + "\n", "amq.\ndirect", queue + "\n")  # but a routing key keeps them
    publish(channel, queue + "\n", "m", exchange="amq.direct")
    publish(channel, queue, "n", exchange="amq.direct")
    assert drain(channel, queue) == ["m"]
    channel.queue_delete("\r" + queue)
    assert _is_gone(channel.connection, queue)


@pytest.mark.parametrize("method", ["basic_get", "queue_purge", "basic_consume"])
def test_cr_and_lf_are_not_stripped_by(channel: BlockingChannel, name: Names, method: str) -> None:
    queue = name()
    channel.queue_declare(queue)
    arguments = (print,) if method == "basic_consume" else ()
    with closes(channel, 404, no_queue(queue + "\n")):
        getattr(channel, method)(queue + "\n", *arguments)


# --- the queue declared last -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("basic_get", ("",)),
        ("basic_consume", ("", print)),
        ("queue_purge", ("",)),
        ("queue_delete", ("",)),
        ("queue_bind", ("", "amq.direct", "k")),
        ("queue_unbind", ("", "amq.direct", "k")),
    ],
)
def test_no_name_and_none_declared_before(channel: BlockingChannel, method: str, arguments: tuple[Any, ...]) -> None:
    with closes(channel, 404, NONE_DECLARED):
        getattr(channel, method)(*arguments)


def test_no_name_stands_for_the_queue_declared_last(channel: BlockingChannel, name: Names) -> None:
    first, last = name(), name()
    channel.queue_declare(first)
    channel.queue_declare(last)
    publish(channel, first, "first")
    publish(channel, last, "a", "b", "c")
    assert must_get(channel, "").body == b"a"
    assert channel.queue_purge("").method.message_count == 2
    inbox = Inbox(channel, "", auto_ack=True)
    publish(channel, last, "d")
    assert inbox.take_bodies(1) == ["d"]
    channel.queue_delete("")
    assert ready(channel, first) == 1
    assert _is_gone(channel.connection, last)


def test_a_passive_declare_counts_as_the_last(channel: BlockingChannel, name: Names) -> None:
    first, last = name(), name()
    channel.queue_declare(first)
    channel.queue_declare(last)
    channel.queue_declare(first, passive=True)
    channel.queue_delete("")
    assert ready(channel, last) == 0
    assert _is_gone(channel.connection, first)


def test_the_last_declared_is_per_channel(channel: BlockingChannel, name: Names) -> None:
    channel.queue_declare(name())
    with closes(other := channel.connection.channel(), 404, NONE_DECLARED):
        other.basic_get("")


def test_the_last_declared_is_remembered_after_its_end(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    channel.queue_delete("")
    with closes(channel, 404, no_queue(queue)):
        channel.basic_get("")


def test_passive_declare_knows_no_shorthand(channel: BlockingChannel, name: Names) -> None:
    channel.queue_declare(name())
    with closes(channel, 404, no_queue("")):
        channel.queue_declare("", passive=True)


# --- missing ones ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["queue_declare", "basic_get", "queue_purge", "basic_consume", "queue_bind"])
def test_missing_queue(channel: BlockingChannel, name: Names, method: str) -> None:
    queue = name()
    arguments: dict[str, tuple[Any, ...]] = {
        "queue_declare": (True,),
        "basic_consume": (print,),
        "queue_bind": ("amq.direct", "k"),
    }
    with closes(channel, 404, no_queue(queue)):
        getattr(channel, method)(queue, *arguments.get(method, ()))


def test_delete_of_a_missing_queue_succeeds(channel: BlockingChannel, name: Names) -> None:
    assert channel.queue_delete(name()).method.message_count == 0
    assert channel.queue_delete(name(), if_unused=True, if_empty=True).method.message_count == 0


def test_passive_declare_compares_nothing(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    flags: dict[str, Any] = {"durable": True, "auto_delete": True, "exclusive": True, "arguments": {"x-expires": -1}}
    assert channel.queue_declare(queue, passive=True, **flags).method.queue == queue


# --- exclusive -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("queue_declare", {"exclusive": True}),
        ("queue_declare", {"exclusive": False}),
        ("queue_declare", {"passive": True}),
        ("queue_delete", {}),
        ("queue_purge", {}),
        ("queue_bind", {"exchange": "amq.direct", "routing_key": "k"}),
        ("basic_get", {}),
        ("basic_consume", {"on_message_callback": print}),
    ],
)
def test_exclusive_queue_of_another_connection(
    channel: BlockingChannel, connect: Connect, name: Names, method: str, arguments: dict[str, Any]
) -> None:
    queue = name()
    channel.queue_declare(queue, exclusive=True)
    with closes(other := connect().channel(), 405, locked(queue)):
        getattr(other, method)(queue, **arguments)


def test_unbind_from_another_connection_hits_the_lock_only_for_a_real_binding(
    channel: BlockingChannel, connect: Connect, name: Names
) -> None:
    queue = name()
    channel.queue_declare(queue, exclusive=True)
    channel.queue_bind(queue, "amq.direct", queue)
    other = connect().channel()
    other.queue_unbind(queue, "amq.direct", "another key")
    with closes(other, 405, locked(queue)):
        other.queue_unbind(queue, "amq.direct", queue)


def test_everybody_may_publish_to_an_exclusive_queue(channel: BlockingChannel, connect: Connect, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue, exclusive=True)
    other = connect().channel()
    other.confirm_delivery()
    other.basic_publish("", queue, b"m", mandatory=True)
    assert drain(channel, queue) == ["m"]


def test_exclusive_queue_on_another_channel_of_its_connection(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue, exclusive=True)
    other = channel.connection.channel()
    other.queue_declare(queue, exclusive=True)
    channel.close()
    publish(other, queue, "m")
    assert drain(other, queue) == ["m"]


@pytest.mark.parametrize("durable", [False, True])
def test_exclusive_queue_is_gone_before_its_owner_is_told_goodbye(
    channel: BlockingChannel, connect: Connect, name: Names, durable: bool
) -> None:
    queue = name()
    owner = connect()
    owner.channel().queue_declare(queue, exclusive=True, durable=durable)
    owner.close()
    assert _is_gone(channel.connection, queue)


# --- auto-delete -----------------------------------------------------------------------------------------------------


def test_auto_delete_queue_goes_with_its_last_consumer(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue, auto_delete=True)
    first, last = Inbox(channel, queue), Inbox(channel, queue)
    channel.basic_cancel(first.tag)
    assert counts(channel, queue) == (0, 1)
    channel.basic_cancel(last.tag)
    eventually(lambda: _is_gone(channel.connection, queue))


def test_auto_delete_queue_goes_with_messages_in_it(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue, auto_delete=True)
    channel.basic_qos(prefetch_count=1)
    inbox = Inbox(channel, queue)
    publish(channel, queue, "a", "b", "c")
    inbox.take(1)
    channel.basic_cancel(inbox.tag)
    eventually(lambda: _is_gone(channel.connection, queue))


@pytest.mark.parametrize("end", ["channel", "connection"])
def test_auto_delete_queue_goes_with_the_end_of(
    channel: BlockingChannel, connect: Connect, name: Names, end: str
) -> None:
    queue = name()
    consumer = connect().channel()
    consumer.queue_declare(queue, auto_delete=True)
    Inbox(consumer, queue)
    (consumer if end == "channel" else consumer.connection).close()
    eventually(lambda: _is_gone(channel.connection, queue))


def test_auto_delete_queue_stays_until_consumed(channel: BlockingChannel, connect: Connect, name: Names) -> None:
    queue = name()
    owner = connect()
    owner.channel().queue_declare(queue, auto_delete=True)
    owner.close()
    publish(channel, queue, "m")
    assert drain(channel, queue) == ["m"]
    assert counts(channel, queue) == (0, 0)


# --- counts, purge, delete -------------------------------------------------------------------------------------------


def test_counts_are_of_ready_messages_and_consumers(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    assert (ok := channel.queue_declare(queue).method).message_count == ok.consumer_count == 0
    publish(channel, queue, "a", "b", "c")
    assert counts(channel, queue) == (3, 0)
    must_get(channel, queue, auto_ack=False)
    assert counts(channel, queue) == (2, 0)
    channel.basic_qos(prefetch_count=1)
    inbox = Inbox(channel, queue)
    inbox.take(1)
    assert counts(channel, queue) == (1, 1)
    other = channel.connection.channel()
    ok = other.queue_declare(queue).method
    assert (ok.message_count, ok.consumer_count) == (1, 1)


def test_purge_takes_ready_messages_only(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    publish(channel, queue, "a", "b", "c")
    kept = must_get(channel, queue, auto_ack=False)
    assert channel.queue_purge(queue).method.message_count == 2
    assert channel.queue_purge(queue).method.message_count == 0
    channel.basic_nack(kept.method.delivery_tag)
    assert drain(channel, queue) == ["a"]


def test_delete_counts_ready_messages_only(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    publish(channel, queue, "a", "b", "c")
    must_get(channel, queue, auto_ack=False)
    assert channel.queue_delete(queue).method.message_count == 2


def test_an_ack_for_a_deleted_queue_is_fine(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    publish(channel, queue, "a")
    kept = must_get(channel, queue, auto_ack=False)
    channel.queue_delete(queue)
    channel.basic_ack(kept.method.delivery_tag)
    sync(channel)


def test_a_new_queue_of_the_same_name_is_empty(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    publish(channel, queue, "a", "b")
    kept = must_get(channel, queue, auto_ack=False)
    channel.queue_delete(queue)
    channel.queue_declare(queue, durable=True)
    channel.basic_nack(kept.method.delivery_tag)
    assert get(channel, queue) is None


def test_delete_if_empty(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    publish(channel, queue, "m")
    with closes(channel, 406, f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty"):
        channel.queue_delete(queue, if_empty=True)
    again = channel.connection.channel()
    assert drain(again, queue) == ["m"]
    again.queue_delete(queue, if_empty=True)
    assert _is_gone(channel.connection, queue)


def test_unacked_messages_do_not_count_for_if_empty(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    publish(channel, queue, "m")
    must_get(channel, queue, auto_ack=False)
    assert channel.queue_delete(queue, if_empty=True).method.message_count == 0
    assert _is_gone(channel.connection, queue)


def test_delete_if_unused(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    Inbox(other := channel.connection.channel(), queue)
    with closes(channel, 406, f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' in use"):
        channel.queue_delete(queue, if_unused=True)
    other.close()
    again = channel.connection.channel()
    publish(again, queue, "m")
    assert again.queue_delete(queue, if_unused=True).method.message_count == 1


def test_both_conditions_failing_report_the_messages(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    channel.basic_qos(prefetch_count=1)
    inbox = Inbox(channel, queue)
    publish(channel, queue, "a", "b")
    inbox.take(1)
    with closes(channel, 406, f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty"):
        channel.queue_delete(queue, if_unused=True, if_empty=True)


def test_deleting_does_not_care_for_consumers_and_messages(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    Inbox(channel.connection.channel(), queue)
    publish(channel, queue, "m")
    channel.queue_delete(queue)
    assert _is_gone(channel.connection, queue)
