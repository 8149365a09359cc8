"""Transactions through a change of leader: the open one is told again, and what was committed is there once."""

from __future__ import annotations

import pytest

from rabbitish.wire import methods
from tests.session.client import publication
from tests.session.harness import World

from .carried import Carried, carried, deliveries, drained, successor
from .test_resent import journalled, persistent, told


def transacting(world: World | None = None) -> Carried:
    """A client with a channel in a transaction, and a durable queue `q`."""
    client = carried(world or World())
    if world is None:
        client.declare("q", durable=True)
    assert client.ask(methods.TxSelect()) == methods.TxSelectOk()
    return client


def test_publishes_of_the_open_transaction_are_told_again() -> None:
    client = transacting()
    client.publish("q", b"1", b"2")
    assert client.ask(methods.TxCommit()) == methods.TxCommitOk()
    client.publish("q", b"3")
    new = successor(client.world)
    client.move(new)
    assert client.answers() == [] and new.queue("q").ready == 2
    client.publish("q", b"4")
    assert client.ask(methods.TxCommit()) == methods.TxCommitOk()
    assert drained(new, "q") == [b"1", b"2", b"3", b"4"]
    assert client.gateway.open_bytes == 0


def test_what_was_rolled_back_is_not() -> None:
    client = transacting()
    client.publish("q", b"1")
    assert client.ask(methods.TxRollback()) == methods.TxRollbackOk()
    assert client.gateway.open_bytes == 0
    client.publish("q", b"2")
    client.move(successor(client.world))
    client.publish("q", b"3")
    client.move(successor(client.world))
    assert client.ask(methods.TxRollback()) == methods.TxRollbackOk()
    client.publish("q", b"4")
    assert client.ask(methods.TxCommit()) == methods.TxCommitOk()
    assert drained(client.world, "q") == [b"4"]


@pytest.mark.parametrize(("end", "answer"), [("TxCommit", "TxCommitOk"), ("TxRollback", "TxRollbackOk")])
def test_an_end_that_the_leader_did_not_hear_is_asked_for_again(end: str, answer: str) -> None:
    client = transacting()
    client.slow = True
    client.publish("q", b"1")
    client.send(getattr(methods, end)())
    client.publish("q", b"2")
    client.lose_leader()
    client.slow = False
    new = successor(client.world)
    client.go_on(new)
    client.expect(getattr(methods, answer)())
    assert client.ask(methods.TxCommit()) == methods.TxCommitOk()
    assert drained(new, "q") == ([b"1", b"2"] if end == "TxCommit" else [b"2"])
    assert client.gateway.open_bytes == 0


def test_acknowledgements_of_the_open_transaction_are_void_since_all_comes_again() -> None:
    client = transacting()
    client.publish("q", b"1", b"2", b"3")
    client.ask(methods.TxCommit())
    client.consume("q", "t")
    assert [body for _, _, body in deliveries(client)] == [b"1", b"2", b"3"]
    client.send(methods.BasicAck(delivery_tag=1))
    client.ask(methods.TxCommit())
    client.send(methods.BasicAck(delivery_tag=2))
    new = successor(client.world)  # whose journal has the first acknowledgement and not the second
    new.queue("q")
    client.move(new)
    assert deliveries(client) == [("t", 4, b"2"), ("t", 5, b"3")]
    client.send(methods.BasicAck(delivery_tag=3))  # of the last leader's
    client.send(methods.BasicAck(delivery_tag=5))
    assert client.ask(methods.TxCommit()) == methods.TxCommitOk()
    client.hang_up()
    assert drained(new, "q") == [b"2"]


def test_a_commit_that_was_done_is_not_done_twice() -> None:
    client = transacting(journalled())
    client.raw(persistent(b"1") + persistent(b"2"))
    client.send(methods.TxCommit())
    client.raw(persistent(b"3"))
    assert client.answers() == []
    assert told(client.world) == [(1, [(1, 2)])]
    new = successor(client.world, journal=True, synced=False)
    client.move(new)
    new.synced(new.hub.wanted)  # for tx.select
    assert client.answers() == []  # before it is safe at this leader
    new.synced(new.hub.wanted - 1)
    assert client.answers() == []
    new.synced(new.hub.wanted)
    client.expect(methods.TxCommitOk())
    client.send(methods.TxCommit())
    new.synced()
    client.expect(methods.TxCommitOk())
    assert drained(new, "q") == [b"1", b"2", b"3"]
    assert told(new) == [(1, [(1, 2)]), (1, [(3, 3)])]


def test_a_commit_of_which_the_journal_got_nothing_is_done() -> None:
    client = transacting(journalled())
    client.raw(persistent(b"1") + publication("q", b"2"))
    client.send(methods.TxCommit())
    new = successor(client.world, journal=True, up_to=0)
    client.move(new)
    new.synced()
    client.expect(methods.TxCommitOk())
    assert drained(new, "q") == [b"1", b"2"]


def test_what_follows_a_commit_before_its_answer_belongs_to_the_next_one() -> None:
    client = transacting()
    client.raw(publication("q", b"1") + methods.TxCommit().frame(1) + publication("q", b"2"))
    client.expect(methods.TxCommitOk())
    client.move(successor(client.world))
    assert client.ask(methods.TxCommit()) == methods.TxCommitOk()
    assert drained(client.world, "q") == [b"1", b"2"]
