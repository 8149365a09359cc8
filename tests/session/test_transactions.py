"""Transactions: publishes and acknowledgements that wait for tx.commit, or are forgotten."""

from __future__ import annotations

import pytest

from rabbitish.wire import methods
from rabbitish.wire.method import Method

from .client import Client, publication
from .harness import World

COMMIT, ROLLBACK = methods.TxCommit(), methods.TxRollback()


@pytest.fixture
def tx(client: Client) -> Client:
    """A client with a queue q and a transactional channel 1."""
    client.declare("q")
    client.open(2)
    client.send(methods.TxSelect())
    client.expect(methods.TxSelectOk())
    return client


def ready(client: Client, name: str = "q") -> int:
    client.world.settle()
    return client.world.queue(name).ready


def commit(client: Client) -> None:
    client.send(COMMIT)
    client.expect(methods.TxCommitOk())


def rollback(client: Client) -> None:
    client.send(ROLLBACK)
    client.expect(methods.TxRollbackOk())


def taken(client: Client, count: int) -> None:
    """Publish and take so many messages, unacknowledged."""
    client.publish("q", *[str(number).encode() for number in range(count)], channel=2)
    for _ in range(count):
        assert client.get("q", no_ack=False) is not None


# --- publishes -------------------------------------------------------------------------------------------------------


def test_publishes_come_with_the_commit(tx: Client) -> None:
    tx.publish("q", b"a", b"b", b"c")
    assert tx.answers() == [] and ready(tx) == 0
    commit(tx)
    assert tx.drain("q") == [b"a", b"b", b"c"]


def test_publishes_go_with_the_rollback(tx: Client) -> None:
    tx.publish("q", b"a", b"b")
    rollback(tx)
    commit(tx)
    assert ready(tx) == 0


def test_one_after_the_other(tx: Client) -> None:
    for body in (b"a", b"b", b"c"):
        tx.publish("q", body)
        tx.send(ROLLBACK if body == b"b" else COMMIT)
        assert len(tx.answers()) == 1
    assert tx.drain("q") == [b"a", b"c"]


def test_another_channel_is_not_in_it(tx: Client) -> None:
    tx.raw(publication("q", b"waits", channel=1) + publication("q", b"goes", channel=2))
    assert tx.drain("q") == [b"goes"]


def test_what_is_not_committed_goes_with_the_channel(tx: Client) -> None:
    tx.publish("q", b"a")
    tx.send(methods.ChannelClose())
    tx.expect(methods.ChannelCloseOk())
    assert ready(tx) == 0


def test_returns_come_with_the_commit(tx: Client) -> None:
    tx.publish("nowhere", b"a", mandatory=True)
    assert tx.answers() == []
    tx.send(COMMIT)
    returned = methods.BasicReturn(reply_code=312, reply_text="NO_ROUTE", routing_key="nowhere")
    assert tx.expect(returned, methods.TxCommitOk())[0].body == b"a"


def test_where_a_message_goes_is_settled_when_it_is_published(tx: Client) -> None:
    tx.publish("late", b"a")
    tx.declare("late", channel=2)
    commit(tx)
    assert ready(tx, "late") == 0


def test_a_queue_that_is_gone_at_the_commit(tx: Client) -> None:
    tx.publish("q", b"a")
    tx.send(methods.QueueDelete(queue="q"), channel=2)
    tx.expect(methods.QueueDeleteOk(), channel=2)
    commit(tx)
    assert tx.world.broker.usage.bytes == 0


def test_mistakes_are_told_at_the_publish(tx: Client) -> None:
    tx.publish("q", b"a", exchange="nosuch")
    text = "NOT_FOUND - no exchange 'nosuch' in vhost '/'"
    tx.expect_channel_close(404, text, methods.BasicPublish)


def test_a_queue_that_refuses(tx: Client) -> None:
    """The rest is done all the same, as in RabbitMQ."""
    tx.declare("full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    taken(tx, 1)
    tx.send(methods.BasicAck(delivery_tag=1))
    tx.raw(publication("full", b"1") + publication("full", b"2") + publication("q", b"a"))
    tx.send(COMMIT)
    tx.expect_channel_close(406, "PRECONDITION_FAILED - partial tx completion", methods.TxCommit)
    tx.open()
    assert (tx.drain("full"), tx.drain("q")) == ([b"1"], [b"a"])


# --- acknowledgements ------------------------------------------------------------------------------------------------


def test_acks_come_with_the_commit(tx: Client) -> None:
    taken(tx, 3)
    tx.send(methods.BasicAck(delivery_tag=2, multiple=True))
    assert tx.answers() == [] and tx.world.queue("q").unacked == 3
    commit(tx)
    assert tx.world.queue("q").unacked == 1


@pytest.mark.parametrize(
    ("method", "left"),
    [
        (methods.BasicAck(delivery_tag=1), [b"1"]),
        (methods.BasicReject(delivery_tag=1, requeue=False), [b"1"]),
        (methods.BasicReject(delivery_tag=1, requeue=True), [b"0", b"1"]),
        (methods.BasicNack(delivery_tag=2, multiple=True, requeue=False), []),
        (methods.BasicNack(delivery_tag=0, multiple=True, requeue=True), [b"0", b"1"]),
    ],
)
def test_what_a_commit_does(tx: Client, method: Method, left: list[bytes]) -> None:
    taken(tx, 2)
    tx.send(method)
    commit(tx)
    tx.send(methods.ChannelClose())
    tx.expect(methods.ChannelCloseOk())
    tx.open()
    assert tx.drain("q") == left


def test_rolled_back_acks_may_be_acked_again(tx: Client) -> None:
    taken(tx, 3)
    tx.send(methods.BasicAck(delivery_tag=2), methods.BasicNack(delivery_tag=1))
    rollback(tx)
    assert (ready(tx), tx.world.queue("q").unacked) == (0, 3)
    tx.send(methods.BasicAck(delivery_tag=3, multiple=True))
    commit(tx)
    assert (ready(tx), tx.world.queue("q").unacked) == (0, 0)


def test_uncommitted_acks_are_none_when_the_channel_goes(tx: Client) -> None:
    taken(tx, 4)
    tx.send(methods.BasicAck(delivery_tag=3), methods.BasicAck(delivery_tag=1))
    tx.send(methods.ChannelClose())
    tx.expect(methods.ChannelCloseOk())
    tx.open()
    said = [tx.get("q") for _ in range(4)]
    assert [one.body for one in said if one] == [b"0", b"1", b"2", b"3"]
    assert all(one.method.redelivered for one in said if one)  # type: ignore[union-attr]


def test_uncommitted_acks_hold_the_prefetch(tx: Client) -> None:
    tx.send(methods.BasicQos(prefetch_count=1))
    tx.expect(methods.BasicQosOk())
    tx.consume("q")
    tx.publish("q", b"a", b"b", channel=2)
    assert tx.bodies() == [b"a"]
    tx.send(methods.BasicAck(delivery_tag=1))
    assert tx.bodies() == []
    tx.send(COMMIT)
    names = [said.method.name for said in tx.answers() if said.method]
    assert names == ["tx.commit-ok", "basic.deliver"]


def test_an_unknown_tag_is_told_at_once(tx: Client) -> None:
    tx.send(methods.BasicAck(delivery_tag=7))
    tx.expect_channel_close(406, "PRECONDITION_FAILED - unknown delivery tag 7", methods.BasicAck)


def test_a_tag_acked_in_it_is_unknown_until_the_rollback(tx: Client) -> None:
    taken(tx, 1)
    tx.send(methods.BasicAck(delivery_tag=1), methods.BasicAck(delivery_tag=1))
    tx.expect_channel_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", methods.BasicAck)
    assert ready(tx) == 1


# --- the mode --------------------------------------------------------------------------------------------------------


def test_selecting_again_changes_nothing(tx: Client) -> None:
    tx.publish("q", b"a")
    tx.send(methods.TxSelect())
    tx.expect(methods.TxSelectOk())
    commit(tx)
    assert ready(tx) == 1


def test_selecting_after_publishing(client: Client) -> None:
    """What was learnt of a publish before must not carry one past the transaction."""
    client.declare("q")
    for _ in range(3):
        client.publish("q", b"a")
    client.send(methods.TxSelect())
    client.expect(methods.TxSelectOk())
    client.publish("q", b"b", b"b")
    assert client.world.queue("q").ready == 3
    rollback(client)
    assert client.world.queue("q").ready == 3


@pytest.mark.parametrize("method", [COMMIT, ROLLBACK], ids=lambda it: it.name)
def test_not_selected(client: Client, method: Method) -> None:
    client.send(method)
    client.expect_channel_close(406, "PRECONDITION_FAILED - channel is not transactional", type(method))


def test_no_confirms_in_it(tx: Client) -> None:
    tx.send(methods.ConfirmSelect())
    text = "PRECONDITION_FAILED - cannot switch from tx to confirm mode"
    tx.expect_channel_close(406, text, methods.ConfirmSelect)


def test_a_requester_that_is_gone_at_the_commit(world: World, tx: Client) -> None:
    """An answer in a transaction must not reach a channel that was closed meanwhile."""
    asker = world.client()
    asker.consume("amq.rabbitmq.reply-to", no_ack=True)
    asker.publish("q", b"question", reply_to="amq.rabbitmq.reply-to")
    question = tx.get("q")
    assert question is not None and question.props.reply_to is not None
    tx.publish(question.props.reply_to, b"answer")
    asker.send(methods.ChannelClose(), methods.ChannelOpen())
    asker.expect(methods.ChannelCloseOk(), methods.ChannelOpenOk())
    commit(tx)
    assert asker.answers() == []
