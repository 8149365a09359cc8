"""Starts: how often messages have come back."""

from __future__ import annotations

import pytest

from rabbitish.store import replay, runs
from rabbitish.values import Int64
from rabbitish.wire import methods

from .machine import Machine, bodies


@pytest.mark.parametrize("returns", [0, 1])
def test_each_process_that_ended_with_a_message_out_counts(returns: int) -> None:
    """With a delivery limit, one that ends the process each time must not do so for ever."""
    machine = Machine()
    client = machine.client()
    client.declare("q", durable=True, arguments={"x-delivery-limit": 5})
    client.publish("q", b"poison", delivery_mode=2)
    for _ in range(returns):
        said = client.get("q", no_ack=False)
        assert said is not None and isinstance(said.method, methods.BasicGetOk)
        client.send(methods.BasicReject(delivery_tag=said.method.delivery_tag, requeue=True))
    client.get("q", no_ack=False)
    for count in range(returns + 1, returns + 4):
        machine = machine.again()
        client = machine.client()
        said = client.get("q", no_ack=False)
        assert said is not None and said.props.headers == {"x-delivery-count": Int64(count)}


@pytest.mark.parametrize("returns", [0, 1])
@pytest.mark.parametrize("limit", [0, 1, 2])
def test_a_limit_that_is_passed_by_the_end_of_a_process_is_passed(limit: int, returns: int) -> None:
    """The message is not delivered again: it is a dead letter as any other is, and stays one."""
    machine = Machine()
    client = machine.client()
    client.declare("dead", durable=True)
    arguments = {"x-delivery-limit": limit, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    client.declare("q", durable=True, arguments=arguments)
    client.publish("q", b"poison", b"other", delivery_mode=2)
    returns = min(returns, limit)
    for _ in range(returns):
        said = client.get("q", no_ack=False)
        assert said is not None and isinstance(said.method, methods.BasicGetOk)
        client.send(methods.BasicReject(delivery_tag=said.method.delivery_tag, requeue=True))
    for _ in range(returns, limit + 1):
        said = client.get("q", no_ack=False)
        assert said is not None and said.body == b"poison"
        machine = machine.again()
        client = machine.client()
    assert machine.recovered.messages == 2
    for _ in range(3):
        assert [bodies(machine.queue(name)) for name in ("q", "dead")] == [[b"other"], [b"poison"]]
        machine.healthy()
        machine = machine.again()
    client = machine.client()
    said = client.get("dead")
    assert said is not None
    assert (said.props.headers or {})["x-first-death-reason"] == "delivery_limit"


def test_a_limit_that_is_passed_by_the_end_of_a_process_without_a_place_for_the_dead() -> None:
    machine = Machine()
    client = machine.client()
    client.declare("q", durable=True, arguments={"x-delivery-limit": 0})
    client.publish("q", b"poison", b"other", delivery_mode=2)
    assert client.get("q", no_ack=False) is not None
    for _ in range(3):
        machine = machine.again()
        assert bodies(machine.queue("q")) == [b"other"]
        machine.healthy()


@pytest.mark.parametrize("kept", [0, 1, 4096])
def test_what_was_out_comes_back_whether_its_stamp_was_kept_or_not(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "KINDS_KEPT", kept)
    monkeypatch.setattr(runs, "KINDS_KEPT", kept)
    machine = Machine()
    client = machine.client()
    client.declare("q", durable=True, arguments={"x-max-priority": 2})
    for number in range(12):
        how = {"priority": number % 3, "expiration": str(5000 + number % 2), "message_id": str(number)}
        client.publish("q", b"%d" % number, b"%d more" % number, delivery_mode=2, **how)
    taken = [client.get("q", no_ack=False) for _ in range(13)]
    expected = [said.body for said in taken if said is not None] + bodies(machine.queue("q"))
    machine = machine.again()
    got = [machine.client().get("q") for _ in range(24)]
    assert [said.body for said in got if said is not None] == expected
    assert {said.props.message_id for said in got if said is not None} == {str(number) for number in range(12)}
    redelivered = [said.method.redelivered for said in got if said and isinstance(said.method, methods.BasicGetOk)]
    assert redelivered == [True] * 13 + [False] * 11
