"""Starts: how often messages have come back."""

from __future__ import annotations

import pytest

from rabbitish.values import Int64
from rabbitish.wire import methods

from .machine import Machine


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
