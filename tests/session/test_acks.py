"""Deliveries and what becomes of them: ack, nack, reject, recover, and all that comes back when somebody goes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish.wire import methods
from rabbitish.wire.method import Method

from .client import Client, Said
from .harness import World

ACK, NACK, REJECT = methods.BasicAck, methods.BasicNack, methods.BasicReject


@pytest.fixture
def held(client: Client) -> Client:
    """A client with a queue q that holds five deliveries, 0 to 4, by consumer t."""
    client.declare("q")
    client.publish("q", *[b"%d" % number for number in range(5)])
    client.consume("q")
    assert client.deliveries() == [("t", number + 1, b"%d" % number) for number in range(5)]
    return client


def counts(client: Client) -> tuple[int, int]:
    """Ready and unacknowledged messages in q."""
    client.world.settle()
    queue = client.world.queue("q")
    return queue.ready, queue.unacked


def redelivered(said: list[Said]) -> list[tuple[bytes, bool]]:
    return [(one.body, one.method.redelivered) for one in said]  # type: ignore[union-attr]


def left(client: Client) -> list[tuple[bytes, bool]]:
    """What is ready in q, taken by another client."""
    other = client.world.client()
    return redelivered([said for said in iter(lambda: other.get("q"), None) if said])


# --- ack -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acks", "remain"),
    [
        ([ACK(1)], [b"1", b"2", b"3", b"4"]),
        ([ACK(3)], [b"0", b"1", b"3", b"4"]),
        ([ACK(3, multiple=True)], [b"3", b"4"]),
        ([ACK(5, multiple=True)], []),
        ([ACK(0, multiple=True)], []),
        ([ACK(0, multiple=True), ACK(0, multiple=True)], []),
        ([ACK(2), ACK(1), ACK(4), ACK(3)], [b"4"]),
        ([ACK(2), ACK(4, multiple=True)], [b"4"]),
        ([ACK(2, multiple=True), ACK(3), ACK(5, multiple=True)], []),
        ([ACK(4), ACK(3, multiple=True), ACK(5)], []),
    ],
    ids=lambda acks: " ".join(f"{ack.delivery_tag}{'*' * ack.multiple}" for ack in acks if isinstance(ack, ACK)),
)
@pytest.mark.parametrize("together", [True, False])
def test_acks(held: Client, acks: list[Method], remain: list[bytes], together: bool) -> None:
    if together:
        held.send(*acks)
    for ack in [] if together else acks:
        held.send(ack)
        assert held.answers() == []
    assert counts(held) == (0, len(remain))
    assert held.world.queue("q").bytes == len(remain)
    held.hang_up()
    assert left(held) == [(body, True) for body in remain]


@pytest.mark.parametrize(
    "acks",
    [
        [ACK(6)],
        [ACK(0)],
        [ACK(6, multiple=True)],
        [ACK((1 << 64) - 1)],
        [ACK(2), ACK(2)],
        [ACK(3, multiple=True), ACK(2)],
        [ACK(3, multiple=True), ACK(3, multiple=True)],
        [ACK(2), ACK(2, multiple=True)],
        [ACK(0, multiple=True), ACK(1)],
        [NACK(2, multiple=False), REJECT(2)],
        [NACK(9, multiple=True)],
        [REJECT(0)],
    ],
    ids=str,
)
@pytest.mark.parametrize("together", [True, False])
def test_unknown_tags(held: Client, acks: list[Method], together: bool) -> None:
    bad = acks[-1]
    if not together:
        held.send(*acks[:-1])
        held.answers()
    held.send(*(acks if together else acks[-1:]))
    text = f"PRECONDITION_FAILED - unknown delivery tag {bad.delivery_tag}"  # type: ignore[attr-defined]
    held.expect_channel_close(406, text, type(bad))


def test_an_unknown_tag_leaves_the_rest(held: Client) -> None:
    held.send(ACK(1), ACK(1), ACK(2))
    held.expect_channel_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", ACK)
    assert left(held) == [(b"%d" % number, True) for number in (1, 2, 3, 4)]


def test_tags_are_of_the_channel(held: Client) -> None:
    held.open(2)
    held.send(ACK(1), channel=2)
    held.expect_channel_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", ACK, channel=2)
    assert counts(held) == (0, 5)


def test_one_ack_for_several_queues_and_consumers(client: Client) -> None:
    for name in ("p", "q", "r"):
        client.declare(name)
        client.publish(name, b"1", b"22")
        client.consume(name, name)
        assert len(client.bodies()) == 2
    client.send(ACK(5, multiple=True))
    client.world.settle()
    assert [client.world.queue(name).unacked for name in ("p", "q", "r")] == [0, 0, 1]
    assert [client.world.queue(name).bytes for name in ("p", "q", "r")] == [0, 0, 2]


def test_a_million_tags_later(client: Client) -> None:
    """Tags that are long gone cost nothing."""
    client.declare("q")
    client.consume("q")
    for _ in range(100):
        client.publish("q", *[b""] * 100)
        tags = [tag for _, tag, _ in client.deliveries()]
        client.send(*[ACK(tag) for tag in tags[:-1]])
    client.send(ACK(tags[-1], multiple=True))
    assert client.answers() == [] and counts(client) == (0, 0)
    assert client.session.channels[1].unacked.places == 0


# --- nack and reject -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "again"),
    [
        (REJECT(2, requeue=True), [b"1"]),
        (REJECT(2, requeue=False), []),
        (NACK(2, multiple=False, requeue=True), [b"1"]),
        (NACK(3, multiple=True, requeue=True), [b"0", b"1", b"2"]),
        (NACK(0, multiple=True, requeue=True), [b"0", b"1", b"2", b"3", b"4"]),
        (NACK(0, multiple=True, requeue=False), []),
    ],
)
def test_what_comes_again(held: Client, method: Method, again: list[bytes]) -> None:
    held.send(method)
    said = held.answers()
    assert redelivered(said) == [(body, True) for body in again]
    assert [one.method.delivery_tag for one in said] == list(range(6, 6 + len(again)))  # type: ignore[union-attr]


def test_rejected_messages_go_to_the_dead(client: Client) -> None:
    client.declare("dead")
    client.declare("q", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    client.publish("q", b"1", b"2", b"3", headers={"mine": 1}, expiration="60000")
    client.consume("q")
    assert len(client.answers()) == 3
    client.send(REJECT(2, requeue=False), NACK(3, multiple=True, requeue=False))
    for body in (b"2", b"1", b"3"):
        said = client.get("dead")
        assert said is not None and said.body == body and said.props.expiration is None
        headers = said.props.headers
        assert headers is not None and headers["mine"] == 1
        (death,) = headers["x-death"]  # type: ignore[misc]
        assert (death["queue"], death["reason"], death["count"]) == ("q", "rejected", 1)  # type: ignore[index,call-overload]
        assert death["original-expiration"] == "60000"  # type: ignore[index,call-overload]


def test_a_delivery_limit(client: Client) -> None:
    client.declare("q", arguments={"x-delivery-limit": 2})
    client.publish("q", b"x", headers={"mine": 1})
    client.consume("q")
    seen = []
    while said := client.answers():
        (one,) = said
        seen.append((one.props.headers, one.method.redelivered))  # type: ignore[union-attr]
        client.send(REJECT(one.method.delivery_tag, requeue=True))  # type: ignore[union-attr]
    assert seen == [
        ({"mine": 1}, False),
        ({"mine": 1, "x-delivery-count": 1}, True),
        ({"mine": 1, "x-delivery-count": 2}, True),
    ]
    assert counts(client) == (0, 0)


# --- get -------------------------------------------------------------------------------------------------------------


def test_get(client: Client) -> None:
    client.declare("q")
    client.send(methods.BasicGet(queue="q"))
    client.expect(methods.BasicGetEmpty())
    client.publish("q", b"a", b"b", priority=3)
    client.send(methods.BasicGet(queue="q"), methods.BasicGet())
    said = client.expect(
        methods.BasicGetOk(delivery_tag=1, redelivered=False, exchange="", routing_key="q", message_count=1),
        methods.BasicGetOk(delivery_tag=2, redelivered=False, exchange="", routing_key="q", message_count=0),
    )
    assert [(one.body, one.props.priority) for one in said] == [(b"a", 3), (b"b", 3)]
    assert counts(client) == (0, 2)
    client.send(REJECT(2), ACK(1))
    assert left(client) == [(b"b", True)]


def test_get_without_ack(client: Client) -> None:
    client.declare("q")
    client.publish("q", b"a")
    assert client.get("q", no_ack=True) is not None
    assert counts(client) == (0, 0)
    client.send(ACK(1))
    client.expect_channel_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", ACK)


def test_get_and_deliver_share_their_tags(client: Client) -> None:
    client.declare("p")
    client.declare("q")
    client.consume("p")
    client.publish("q", b"a")
    client.publish("p", b"b")
    assert client.deliveries() == [("t", 1, b"b")]
    said = client.get("q", no_ack=False)
    assert said is not None and said.method.delivery_tag == 2  # type: ignore[union-attr]


def test_get_from_a_missing_queue(client: Client) -> None:
    client.send(methods.BasicGet(queue="nosuch"))
    client.expect_channel_close(404, "NOT_FOUND - no queue 'nosuch' in vhost '/'", methods.BasicGet)


# --- recover ---------------------------------------------------------------------------------------------------------


def test_recover(held: Client) -> None:
    held.send(ACK(2), methods.BasicRecover(requeue=True))
    said = held.answers()
    assert said[0].method == methods.BasicRecoverOk()
    assert redelivered(said[1:]) == [(b"%d" % number, True) for number in (0, 2, 3, 4)]


def test_recover_async(held: Client) -> None:
    held.send(methods.BasicRecoverAsync(requeue=True))
    assert redelivered(held.answers()) == [(b"%d" % number, True) for number in range(5)]


def test_recover_takes_in_what_was_got(client: Client) -> None:
    client.declare("q")
    client.publish("q", b"a", b"b")
    assert client.get("q", no_ack=False) is not None
    client.send(methods.BasicRecover(requeue=True))
    client.expect(methods.BasicRecoverOk())
    assert left(client) == [(b"a", True), (b"b", False)]


def test_recover_of_nothing(client: Client) -> None:
    client.send(methods.BasicRecover(requeue=True))
    client.expect(methods.BasicRecoverOk())


@pytest.mark.parametrize("method", [methods.BasicRecover(requeue=False), methods.BasicRecoverAsync(requeue=False)])
def test_recover_without_requeue(held: Client, method: Method) -> None:
    held.send(method)
    held.expect_connection_close(540, "NOT_IMPLEMENTED - requeue=false", type(method))


# --- when somebody goes ----------------------------------------------------------------------------------------------


def by_channel_close(client: Client) -> None:
    client.send(methods.ChannelClose())


def by_channel_error(client: Client) -> None:
    client.send(ACK(77))


def by_close(client: Client) -> None:
    client.send(methods.ConnectionClose(), channel=0)


def by_error(client: Client) -> None:
    client.send(methods.ChannelOpen())


def by_hanging_up(client: Client) -> None:
    client.hang_up()


def by_silence(client: Client) -> None:
    client.world.advance(150_000)


ENDS = [by_channel_close, by_channel_error, by_close, by_error, by_hanging_up, by_silence]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_everything_comes_back_in_order(world: World, end: Callable[[Client], None]) -> None:
    client = world.client(heartbeat=60)
    client.declare("q")
    client.publish("q", *[b"%d" % number for number in range(6)])
    client.send(methods.BasicQos(prefetch_count=3))
    client.consume("q")
    assert len(client.answers()) == 4
    assert client.get("q", no_ack=False) is not None
    client.send(REJECT(2, requeue=True), ACK(1))
    assert len(client.answers()) == 2
    end(client)
    world.settle()
    assert [redelivery for _, redelivery in left(client)] == [True] * 4 + [False]
    assert counts(client) == (0, 0)
    assert len(world.queue("q").consumers) == 0


def test_who_waits_gets_it_at_once(held: Client, other: Client) -> None:
    other.consume("q")
    held.hang_up()
    assert redelivered(other.answers()) == [(b"%d" % number, True) for number in range(5)]


def test_a_deleted_queue_takes_nothing_back(held: Client) -> None:
    held.send(methods.QueueDelete(queue="q"), REJECT(1), NACK(2, multiple=False, requeue=False), ACK(3))
    assert len(held.answers()) == 2
    held.declare("q")
    held.hang_up()
    assert counts(held) == (0, 0)
    assert held.world.broker.usage.bytes == 0


# --- what another broker may have handed out --------------------------------------------------------------------------


def test_what_was_there_when_another_broker_ended_may_have_been_seen(client: Client) -> None:
    client.declare("q")
    client.publish("q", b"0", b"1", b"2", b"3")
    client.world.settle()
    client.world.broker.doubt()
    client.publish("q", b"4", b"5")
    first = client.get("q")
    assert first is not None
    assert redelivered([first]) == [(b"0", True)]
    client.send(methods.BasicQos(prefetch_count=3))
    client.consume("q")
    assert redelivered(client.answers()[-3:]) == [(b"1", True), (b"2", True), (b"3", True)]
    client.send(ACK(4, multiple=True))
    assert redelivered(client.answers()[-2:]) == [(b"4", False), (b"5", False)]
    client.send(REJECT(5, requeue=True))
    client.publish("q", b"6")
    assert redelivered(client.answers()[-2:]) == [(b"4", True), (b"6", False)]
