"""Prefetch limits: of a consumer, of a channel, changed while messages are out, and what does not count."""

from __future__ import annotations

import pytest

from rabbitish.wire import methods

from .client import Client
from .harness import World


def qos(client: Client, count: int, *, global_: bool = False, channel: int = 1) -> None:
    client.send(methods.BasicQos(prefetch_count=count, global_=global_), channel=channel)
    client.world.settle()


def settled(client: Client) -> None:
    """Forget the answers so far."""
    client.answers()


def fill(client: Client, *names: str, count: int = 10) -> None:
    for name in names or ("q",):
        client.declare(name)
        client.publish(name, *[str(number).encode() for number in range(count)])
    settled(client)


def ack(client: Client, tag: int, *, multiple: bool = False) -> None:
    client.send(methods.BasicAck(delivery_tag=tag, multiple=multiple))


def test_none_at_first(client: Client) -> None:
    fill(client, count=1000)
    client.consume("q")
    assert len(client.bodies()) == 1000


@pytest.mark.parametrize("global_", [False, True])
def test_a_limit(client: Client, global_: bool) -> None:
    fill(client)
    qos(client, 3, global_=global_)
    client.expect(methods.BasicQosOk())
    client.consume("q")
    assert client.bodies() == [b"0", b"1", b"2"]
    ack(client, 2)
    assert client.bodies() == [b"3"]
    ack(client, 4, multiple=True)
    assert client.bodies() == [b"4", b"5", b"6"]
    client.send(methods.BasicReject(delivery_tag=6, requeue=False))
    assert client.bodies() == [b"7"]


def test_each_consumer_has_its_own(client: Client) -> None:
    fill(client)
    qos(client, 2)
    client.expect(methods.BasicQosOk())
    client.consume("q", "a")
    client.consume("q", "b")
    got = client.deliveries()
    assert [tag for tag, _, _ in got] == ["a", "a", "b", "b"]
    ack(client, 3)
    assert client.deliveries() == [("b", 5, b"4")]


def test_it_holds_for_later_consumers_only(client: Client) -> None:
    fill(client)
    qos(client, 2)
    client.expect(methods.BasicQosOk())
    client.consume("q", "a")
    assert len(client.bodies()) == 2
    qos(client, 1)
    client.expect(methods.BasicQosOk())
    client.consume("q", "b")
    assert client.deliveries() == [("b", 3, b"2")]
    ack(client, 1)
    assert client.deliveries() == [("a", 4, b"3")]


def test_zero_is_no_limit(client: Client) -> None:
    fill(client)
    qos(client, 1)
    qos(client, 0)
    assert len(client.answers()) == 2
    client.consume("q")
    assert len(client.bodies()) == 10


def test_consumers_share_a_global_limit(client: Client) -> None:
    fill(client, "p", "q")
    qos(client, 3, global_=True)
    client.expect(methods.BasicQosOk())
    client.consume("p", "p")
    client.consume("q", "q")
    assert [tag for tag, _, _ in client.deliveries()] == ["p", "p", "p"]
    tags = []
    for tag in range(1, 7):
        ack(client, tag)
        tags += [consumer for consumer, _, _ in client.deliveries()]
    assert sorted(set(tags)) == ["p", "q"], "whoever waits gets a turn"
    assert len(tags) == 6


def test_both_kinds_at_once(client: Client) -> None:
    fill(client)
    qos(client, 2)
    qos(client, 3, global_=True)
    assert len(client.answers()) == 2
    client.consume("q", "a")
    client.consume("q", "b")
    assert [tag for tag, _, _ in client.deliveries()] == ["a", "a", "b"]


def test_a_global_limit_that_grows(client: Client) -> None:
    fill(client)
    qos(client, 1, global_=True)
    client.expect(methods.BasicQosOk())
    client.consume("q")
    assert client.bodies() == [b"0"]
    qos(client, 3, global_=True)
    assert [said.body for said in client.answers()[1:]] == [b"1", b"2"]
    qos(client, 0, global_=True)
    assert len(client.answers()) == 8


def test_a_global_limit_that_shrinks(client: Client) -> None:
    fill(client)
    qos(client, 4, global_=True)
    client.expect(methods.BasicQosOk())
    client.consume("q")
    assert len(client.bodies()) == 4
    qos(client, 2, global_=True)
    client.expect(methods.BasicQosOk())
    ack(client, 2, multiple=True)
    assert client.bodies() == []
    ack(client, 3)
    assert client.bodies() == [b"4"]


def test_a_limit_that_is_not_global_ends_the_global_one(client: Client) -> None:
    """RabbitMQ: rabbit_channel, basic.qos with global=false unlimits the channel."""
    fill(client)
    qos(client, 2, global_=True)
    client.expect(methods.BasicQosOk())
    client.consume("q")
    assert len(client.bodies()) == 2
    qos(client, 1)
    assert len(client.answers()) == 1 + 8


def test_no_ack_is_not_limited(client: Client) -> None:
    fill(client)
    qos(client, 1)
    qos(client, 1, global_=True)
    assert len(client.answers()) == 2
    client.consume("q", no_ack=True)
    assert len(client.bodies()) == 10


def test_get_is_not_limited_and_does_not_count(client: Client) -> None:
    fill(client)
    qos(client, 1)
    client.expect(methods.BasicQosOk())
    for _ in range(3):
        assert client.get("q", no_ack=False) is not None
    client.consume("q")
    assert client.bodies() == [b"3"]
    ack(client, 1)
    assert client.bodies() == []
    ack(client, 4)
    assert client.bodies() == [b"4"]


def test_channels_do_not_share(world: World) -> None:
    client = world.client(1, 2)
    fill(client)
    for channel in (1, 2):
        qos(client, 2, global_=True, channel=channel)
        client.expect(methods.BasicQosOk(), channel=channel)
        client.consume("q", channel=channel)
        assert len(client.answers()) == 2


def test_what_a_cancelled_consumer_holds_counts_for_the_channel(client: Client) -> None:
    fill(client)
    qos(client, 2, global_=True)
    client.expect(methods.BasicQosOk())
    client.consume("q", "a")
    assert len(client.bodies()) == 2
    assert client.ask(methods.BasicCancel(consumer_tag="a")) == methods.BasicCancelOk(consumer_tag="a")
    client.consume("q", "b")
    assert client.bodies() == []
    ack(client, 1)
    assert client.deliveries() == [("b", 3, b"2")]


def test_one_at_a_time_is_fair(world: World) -> None:
    workers = [world.client() for _ in range(3)]
    boss = world.client()
    boss.declare("q")
    for worker in workers:
        qos(worker, 1)
        worker.expect(methods.BasicQosOk())
        worker.consume("q")
    boss.publish("q", *[str(number).encode() for number in range(9)])
    done = [worker.deliveries() for worker in workers]
    assert [len(one) for one in done] == [1, 1, 1]
    for _ in range(6):
        tag = done[1][-1][1]
        ack(workers[1], tag)
        done[1] += workers[1].deliveries()
    assert len(done[1]) == 7 and workers[0].answers() == workers[2].answers() == []


@pytest.mark.parametrize("size", [1, 4_294_967_295])
def test_no_limit_in_bytes(client: Client, size: int) -> None:
    client.send(methods.BasicQos(prefetch_size=size))
    client.expect_connection_close(540, f"NOT_IMPLEMENTED - prefetch_size!=0 ({size})", methods.BasicQos)
