"""What a quorum queue refuses and tells; conformance/test_quorum_queues.py puts it beside RabbitMQ's."""

from __future__ import annotations

import pytest

from rabbitish.values import Int64, Table
from rabbitish.wire import methods

from .client import Client, Said

WHERE = "queue 'q' in vhost '/'"


def declare(client: Client, **arguments: object) -> None:
    table: Table = {"x-queue-type": "quorum"}
    table |= {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}  # type: ignore[misc]
    client.declare("q", durable=True, arguments=table)


def count(said: Said | None) -> object:
    assert said is not None
    return (said.props.headers or {}).get("x-delivery-count")


@pytest.mark.parametrize("flag", ["if_unused", "if_empty"])
def test_it_is_deleted_without_conditions(client: Client, flag: str) -> None:
    declare(client)
    client.send(methods.QueueDelete(queue="q", **{flag: True}))
    text = (
        f"NOT_IMPLEMENTED - cannot delete {WHERE}. queue.delete operations with {flag.replace('_', '-')} flag set are "
    )
    client.expect_connection_close(540, text + "not supported by quorum queues", methods.QueueDelete)


def test_no_limit_for_a_whole_channel(client: Client) -> None:
    declare(client)
    client.ask(methods.BasicQos(prefetch_count=1, global_=True))
    client.send(methods.BasicConsume(queue="q"))
    text = f"NOT_IMPLEMENTED - {WHERE} does not support global qos"
    client.expect_connection_close(540, text, methods.BasicConsume)


def test_a_limit_for_a_whole_channel_that_comes_later(client: Client) -> None:
    declare(client)
    client.consume("q")
    client.ask(methods.BasicQos(prefetch_count=1, global_=True))
    client.publish("q", b"1", b"2", b"3")
    assert client.bodies() == [b"1", b"2", b"3"]


def test_get_beside_a_single_active_consumer(client: Client) -> None:
    declare(client, single_active_consumer=True)
    client.send(methods.BasicGet(queue="q"))
    text = (
        f"RESOURCE_LOCKED - cannot obtain access to locked {WHERE}. basic.get operations are not supported by quorum "
    )
    client.expect_channel_close(405, text + "queues with single active consumer", methods.BasicGet)


def test_nobody_is_an_exclusive_consumer(client: Client) -> None:
    declare(client)
    for tag in "ab":
        client.consume("q", tag, exclusive=True)
    client.consume("q", "c")
    client.publish("q", b"1", b"2", b"3")
    assert sorted(tag for tag, _, _ in client.deliveries()) == ["a", "b", "c"]


def test_returns_are_told(client: Client) -> None:
    declare(client)
    client.publish("q", b"m")
    for times in range(3):
        assert count(client.get("q", no_ack=False)) == Int64(times)
        client.send(methods.BasicNack(delivery_tag=times + 1, requeue=True))
    client.consume("q", no_ack=True)
    (said,) = client.answers()
    assert count(said) == Int64(3)


def test_consumers_are_told_nothing_of_what_never_came_back(client: Client) -> None:
    declare(client)
    client.consume("q")
    client.publish("q", b"m")
    (said,) = client.answers()
    assert count(said) is None
