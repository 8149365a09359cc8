"""Dead letters: when a message becomes one, by which keys it goes on, and where it is dropped.

What is written into its headers on the way is in test_death_headers.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import Inbox, closes, drain, get, must_get, no_queue, publish, ready, settle
from conformance.support import Names, eventually


@pytest.fixture
def dead(channel: BlockingChannel, name: Names) -> str:
    """The queue for dead letters."""
    return str(channel.queue_declare(name("dead")).method.queue)


def _source(channel: BlockingChannel, name: Names, dead: str, **more: Any) -> str:
    """A queue whose dead letters go to `dead` through the default exchange; x- arguments without their x-."""
    arguments = {"dead-letter-exchange": "", "dead-letter-routing-key": dead} | {
        key.replace("_", "-"): value for key, value in more.items()
    }
    queue = name()
    channel.queue_declare(queue, arguments={f"x-{key}": value for key, value in arguments.items()})
    return queue


def _reject(channel: BlockingChannel, queue: str) -> None:
    channel.basic_reject(must_get(channel, queue, auto_ack=False).method.delivery_tag, requeue=False)


# --- when ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reject", "nack", "nack multiple", "expiration", "ttl", "maxlen", "maxlen bytes"])
def test_a_message_is_dead_lettered_by(channel: BlockingChannel, name: Names, dead: str, how: str) -> None:
    more = {
        "ttl": {"message_ttl": 20},
        "maxlen": {"max_length": 1},
        "maxlen bytes": {"max_length_bytes": 4},
    }.get(how, {})
    queue = _source(channel, name, dead, **more)
    publish(channel, queue, "1234", **({"expiration": "20"} if how == "expiration" else {}))
    if how.startswith("maxlen"):
        publish(channel, queue, "5678")
    elif how in ("reject", "nack", "nack multiple"):
        tag = must_get(channel, queue, auto_ack=False).method.delivery_tag
        if how == "reject":
            channel.basic_reject(tag, requeue=False)
        else:
            channel.basic_nack(tag, multiple=how == "nack multiple", requeue=False)
    assert must_get(channel, dead).body == b"1234"
    assert ready(channel, queue) == (1 if how.startswith("maxlen") else 0)


def test_all_of_a_multiple_nack_in_order(channel: BlockingChannel, name: Names, dead: str) -> None:
    queue = _source(channel, name, dead)
    publish(channel, queue, *"abcde")
    for _ in range(5):
        must_get(channel, queue, auto_ack=False)
    channel.basic_nack(4, multiple=True, requeue=False)
    assert drain(channel, dead, 4) == ["a", "b", "c", "d"]
    channel.basic_nack(5)
    assert must_get(channel, queue).body == b"e"


@pytest.mark.parametrize("how", ["ack", "purge", "delete", "requeue", "no-ack"])
def test_a_message_is_not_dead_lettered_by(channel: BlockingChannel, name: Names, dead: str, how: str) -> None:
    queue = _source(channel, name, dead)
    publish(channel, queue, "a")
    if how == "purge":
        assert channel.queue_purge(queue).method.message_count == 1
    elif how == "delete":
        assert channel.queue_delete(queue).method.message_count == 1
    elif how == "no-ack":
        must_get(channel, queue, auto_ack=True)
    else:
        tag = must_get(channel, queue, auto_ack=False).method.delivery_tag
        if how == "ack":
            channel.basic_ack(tag)
        else:
            channel.basic_nack(tag, requeue=True)
            assert must_get(channel, queue).body == b"a"
    assert get(channel, dead) is None


def test_ttl_zero_dead_letters_at_once(channel: BlockingChannel, name: Names, dead: str) -> None:
    queue = _source(channel, name, dead, message_ttl=0)
    inbox = Inbox(channel, dead, auto_ack=True)
    publish(channel, queue, "a", "b")
    assert inbox.take_bodies(2) == ["a", "b"]


def test_max_length_zero_dead_letters_everything(channel: BlockingChannel, name: Names, dead: str) -> None:
    queue = _source(channel, name, dead, max_length=0)
    publish(channel, queue, "a", "b")
    assert drain(channel, dead, 2) == ["a", "b"]
    assert get(channel, queue) is None


def test_maxlen_takes_from_the_head(channel: BlockingChannel, name: Names, dead: str) -> None:
    queue = _source(channel, name, dead, max_length=2)
    publish(channel, queue, *"abcde")
    assert drain(channel, dead, 3) == ["a", "b", "c"]
    assert drain(channel, queue) == ["d", "e"]


def test_requeue_over_the_limit(channel: BlockingChannel, name: Names, dead: str) -> None:
    queue = _source(channel, name, dead, max_length=1)
    publish(channel, queue, "a")
    tag = must_get(channel, queue, auto_ack=False).method.delivery_tag
    publish(channel, queue, "b")
    channel.basic_nack(tag)
    assert drain(channel, dead, 1) == ["a"]
    assert drain(channel, queue) == ["b"]


def test_a_late_message_that_is_requeued(channel: BlockingChannel, name: Names, dead: str) -> None:
    queue = _source(channel, name, dead)
    publish(channel, queue, "a", expiration="60")
    tag = must_get(channel, queue, auto_ack=False).method.delivery_tag
    marker = _source(channel, name, dead)
    publish(channel, marker, "marker", expiration="70")
    assert drain(channel, dead, 1) == ["marker"]
    channel.basic_nack(tag)
    assert drain(channel, dead, 1) == ["a"]


def test_a_rejected_publish_is_dead_lettered_only_when_asked(channel: BlockingChannel, name: Names, dead: str) -> None:
    plain = _source(channel, name, dead, max_length=1, overflow="reject-publish")
    asked = _source(channel, name, dead, max_length=1, overflow="reject-publish-dlx")
    for queue in (plain, asked):
        for body in ("a", "b"):
            channel.basic_publish("", queue, f"{queue} {body}".encode())
    assert drain(channel, dead, 1) == [f"{asked} b"]
    assert drain(channel, plain) == [f"{plain} a"]
    assert drain(channel, asked) == [f"{asked} a"]


# --- where -----------------------------------------------------------------------------------------------------------


def test_through_an_exchange_with_its_own_key(channel: BlockingChannel, name: Names, dead: str) -> None:
    dlx, exchange, queue = name("x"), name("x"), name()
    channel.exchange_declare(dlx, "topic")
    channel.exchange_declare(exchange, "topic")
    channel.queue_declare(queue, arguments={"x-dead-letter-exchange": dlx})
    channel.queue_bind(queue, exchange, "#")
    channel.queue_bind(dead, dlx, "a.*")
    publish(channel, "a.b", "kept", exchange=exchange)
    publish(channel, "b.b", "lost", exchange=exchange)
    for _ in range(2):
        _reject(channel, queue)
    got = must_get(channel, dead)
    assert (got.body, got.method.exchange, got.method.routing_key) == (b"kept", dlx, "a.b")
    assert get(channel, dead) is None


def test_through_an_exchange_with_another_key(channel: BlockingChannel, name: Names, dead: str) -> None:
    dlx, queue = name("x"), name()
    channel.exchange_declare(dlx, "direct")
    channel.queue_declare(queue, arguments={"x-dead-letter-exchange": dlx, "x-dead-letter-routing-key": "other"})
    channel.queue_bind(dead, dlx, "other")
    publish(channel, queue, "a")
    _reject(channel, queue)
    got = must_get(channel, dead)
    assert (got.method.exchange, got.method.routing_key) == (dlx, "other")


def test_the_empty_key_is_a_key(channel: BlockingChannel, name: Names, dead: str) -> None:
    dlx, queue = name("x"), name()
    channel.exchange_declare(dlx, "direct")
    channel.queue_declare(queue, arguments={"x-dead-letter-exchange": dlx, "x-dead-letter-routing-key": ""})
    channel.queue_bind(dead, dlx, "")
    publish(channel, queue, "a")
    _reject(channel, queue)
    assert must_get(channel, dead).method.routing_key == ""


def test_the_default_exchange_without_a_key_leads_back(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue, arguments={"x-dead-letter-exchange": ""})
    publish(channel, queue, "a")
    for count in (1, 2, 3):
        got = must_get(channel, queue, auto_ack=False)
        channel.basic_reject(got.method.delivery_tag, requeue=False)
        again = must_get(channel, queue, auto_ack=False)
        assert again.headers["x-death"][0]["count"] == count
        assert again.method.redelivered is False
        channel.basic_reject(again.method.delivery_tag, requeue=True)


def test_several_queues_and_an_internal_exchange(channel: BlockingChannel, name: Names) -> None:
    dlx, queue, dead = name("x"), name(), [name(), name()]
    channel.exchange_declare(dlx, "fanout", internal=True)
    channel.queue_declare(queue, arguments={"x-dead-letter-exchange": dlx})
    for one in dead:
        channel.queue_declare(one)
        channel.queue_bind(one, dlx)
    publish(channel, queue, "a")
    _reject(channel, queue)
    assert [must_get(channel, one).body for one in dead] == [b"a", b"a"]


def test_alternate_of_the_dead_letter_exchange(channel: BlockingChannel, name: Names, dead: str) -> None:
    dlx, alternate, queue = name("x"), name("x"), name()
    channel.exchange_declare(alternate, "fanout")
    channel.exchange_declare(dlx, arguments={"alternate-exchange": alternate})
    channel.queue_declare(queue, arguments={"x-dead-letter-exchange": dlx})
    channel.queue_bind(dead, alternate)
    publish(channel, queue, "a")
    _reject(channel, queue)
    assert must_get(channel, dead).method.exchange == dlx


@pytest.mark.parametrize("missing", ["exchange", "queue"])
def test_missing_target_drops_the_message(channel: BlockingChannel, name: Names, dead: str, missing: str) -> None:
    dlx, queue = name("x"), name()
    if missing == "queue":
        channel.exchange_declare(dlx)
    channel.queue_declare(queue, arguments={"x-dead-letter-exchange": dlx})
    publish(channel, queue, "lost")
    _reject(channel, queue)
    assert get(channel, queue) is None
    if missing == "exchange":
        channel.exchange_declare(dlx)
    channel.queue_bind(dead, dlx, queue)
    publish(channel, queue, "kept")
    _reject(channel, queue)
    assert drain(channel, dead, 1) == ["kept"]


def test_a_full_target_drops_the_message(channel: BlockingChannel, name: Names) -> None:
    full = name()
    channel.queue_declare(full, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    publish(channel, full, "there already")
    queue = _source(channel, name, full)
    publish(channel, queue, "lost")
    _reject(channel, queue)
    assert get(channel, queue) is None
    assert drain(channel, full) == ["there already"]


def test_dead_letters_are_consumed_like_others(channel: BlockingChannel, name: Names, dead: str) -> None:
    queue = _source(channel, name, dead, message_ttl=20)
    inbox = Inbox(channel, dead)
    publish(channel, queue, "a", message_id="id", delivery_mode=2, priority=3)
    (got,) = inbox.take(1)
    assert (got.method.redelivered, got.method.exchange, got.method.routing_key) == (False, "", dead)
    properties = got.properties
    assert (properties.message_id, properties.delivery_mode, properties.priority) == ("id", 2, 3)


# --- CC and BCC ------------------------------------------------------------------------------------------------------


def test_cc_keys_go_along_without_a_new_key(channel: BlockingChannel, name: Names) -> None:
    dlx, queue = name("x"), name()
    dead = [name() for _ in range(2)]
    channel.exchange_declare(dlx, "direct")
    channel.queue_declare(queue, arguments={"x-dead-letter-exchange": dlx})
    for one, key in zip(dead, (queue, "cc"), strict=True):
        channel.queue_declare(one)
        channel.queue_bind(one, dlx, key)
    publish(channel, queue, "a", headers={"CC": ["cc"], "BCC": ["bcc"]})
    _reject(channel, queue)
    for one in dead:
        got = must_get(channel, one)
        assert got.headers["CC"] == ["cc"]
        assert got.headers["x-death"][0]["routing-keys"] == [queue, "cc"]


def test_bcc_keys_go_along_unseen(channel: BlockingChannel, name: Names, dead: str) -> None:
    dlx, queue = name("x"), name()
    channel.exchange_declare(dlx, "direct")
    channel.queue_declare(queue, arguments={"x-dead-letter-exchange": dlx})
    channel.queue_bind(dead, dlx, "bcc")
    publish(channel, queue, "a", headers={"BCC": ["bcc"]})
    _reject(channel, queue)
    got = must_get(channel, dead)
    assert got.method.routing_key == queue
    assert "BCC" not in got.headers
    assert got.headers["x-death"][0]["routing-keys"] == [queue]


def test_a_new_key_replaces_them(channel: BlockingChannel, name: Names, dead: str) -> None:
    dlx, queue = name("x"), name()
    channel.exchange_declare(dlx, "direct")
    channel.queue_declare(queue, arguments={"x-dead-letter-exchange": dlx, "x-dead-letter-routing-key": "new"})
    for key in ("new", "cc", "bcc"):
        channel.queue_bind(dead, dlx, key)
    publish(channel, queue, "a", headers={"CC": ["cc"], "BCC": ["bcc"]})
    _reject(channel, queue)
    got = must_get(channel, dead)
    assert "CC" not in got.headers
    assert got.headers["x-death"][0]["routing-keys"] == [queue, "cc"]
    assert got.method.routing_key == "new"
    assert get(channel, dead) is None


# --- cycles ----------------------------------------------------------------------------------------------------------


def test_a_cycle_of_expiries_ends(channel: BlockingChannel, name: Names) -> None:
    """From `one` to `two` to `one`: there it would start again, so the second death is its last."""
    one, two = name(), name()
    for queue, other in ((one, two), (two, one)):
        channel.queue_declare(
            queue,
            arguments={"x-message-ttl": 20, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": other},
        )
    publish(channel, one, "a")
    assert eventually(lambda: ready(channel, two) == 1)
    assert eventually(lambda: ready(channel, two) == 0)
    settle(channel)
    assert ready(channel, one) == ready(channel, two) == 0


def test_a_queue_that_dead_letters_to_itself_by_expiry(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue, arguments={"x-message-ttl": 10, "x-dead-letter-exchange": ""})
    publish(channel, queue, "a")
    assert eventually(lambda: ready(channel, queue) == 0)
    assert get(channel, queue) is None


def test_a_rejection_in_the_cycle_lets_it_go_on(channel: BlockingChannel, name: Names) -> None:
    work, wait = name(), name()
    channel.queue_declare(work, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": wait})
    channel.queue_declare(
        wait, arguments={"x-message-ttl": 10, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": work}
    )
    publish(channel, work, "a")
    for attempt in range(4):
        got = must_get(channel, work, auto_ack=False)
        deaths = got.headers.get("x-death", [])
        assert [(death["queue"], death["reason"], death["count"]) for death in deaths] == (
            [(wait, "expired", attempt), (work, "rejected", attempt)] if attempt else []
        )
        channel.basic_reject(got.method.delivery_tag, requeue=False)


def test_other_targets_are_reached_although_one_is_a_cycle(channel: BlockingChannel, name: Names, dead: str) -> None:
    dlx, queue = name("x"), name()
    channel.exchange_declare(dlx, "fanout")
    channel.queue_declare(queue, arguments={"x-message-ttl": 10, "x-dead-letter-exchange": dlx})
    for one in (queue, dead):
        channel.queue_bind(one, dlx)
    publish(channel, queue, "a")
    assert drain(channel, dead, 1) == ["a"]
    assert get(channel, queue) is None


def test_deleting_the_target_meanwhile(channel: BlockingChannel, name: Names, dead: str) -> None:
    queue = _source(channel, name, dead)
    publish(channel, queue, "a")
    channel.queue_delete(dead)
    _reject(channel, queue)
    with closes(channel, 404, no_queue(dead)):
        channel.basic_get(dead)
