"""Tests of orders.py, with no broker installed: `pip install . pytest pika` and `pytest examples`.

The fixtures are rabbitish's. A day of waiting takes no time, and what goes wrong goes wrong when it is told to.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from orders import ORDERS, PARKED, later, place, work
from pika.exceptions import NackError, StreamLostError

from rabbitish.testing import RunningBroker, Vhost


class Bank:
    """Refuses to pay for the first so many times."""

    def __init__(self, refusals: int = 0) -> None:
        self.paid: list[str] = []
        self._refusals: Iterator[int] = iter(range(refusals))

    def charge(self, order: str) -> None:
        for _ in self._refusals:
            raise TimeoutError("the bank does not answer")
        self.paid.append(order)


def test_an_order_is_charged(rabbitish_vhost: Vhost) -> None:
    bank = Bank()
    place(rabbitish_vhost.url, "42")
    [message] = rabbitish_vhost.queue(ORDERS).messages
    assert (message.text, message.properties.delivery_mode) == ("42", 2)
    work(rabbitish_vhost.url, bank.charge, most=1)
    assert bank.paid == ["42"]
    assert not any(queue.ready + queue.unacked for queue in rabbitish_vhost.queues)


def test_a_charge_that_fails_is_tried_again_after_a_minute(
    rabbitish_broker: RunningBroker, rabbitish_vhost: Vhost
) -> None:
    bank = Bank(refusals=1)
    place(rabbitish_vhost.url, "42")
    work(rabbitish_vhost.url, bank.charge, most=1)
    assert (bank.paid, rabbitish_vhost.queue(ORDERS).ready) == ([], 0)
    rabbitish_broker.advance(60)
    work(rabbitish_vhost.url, bank.charge, most=1)
    assert bank.paid == ["42"]


def test_an_order_that_fails_four_times_is_put_aside(rabbitish_broker: RunningBroker, rabbitish_vhost: Vhost) -> None:
    bank = Bank(refusals=4)
    place(rabbitish_vhost.url, "42")
    for seconds in (60, 600, 3600):
        work(rabbitish_vhost.url, bank.charge, most=1)
        assert rabbitish_vhost.queue(later(seconds)).ready == 1
        rabbitish_broker.advance(seconds)
    work(rabbitish_vhost.url, bank.charge, most=1)
    [message] = rabbitish_vhost.queue(PARKED).messages
    assert message.text == "42"
    assert message.headers == {"attempts": 4, "error": "the bank does not answer"}


def test_an_order_survives_its_worker(rabbitish_vhost: Vhost) -> None:
    def dies(order: str) -> None:
        rabbitish_vhost.drop_connections()

    place(rabbitish_vhost.url, "42")
    with pytest.raises(StreamLostError):
        work(rabbitish_vhost.url, dies, most=1)
    assert [message.redelivered for message in rabbitish_vhost.queue(ORDERS).messages] == [True]


def test_who_places_an_order_hears_that_the_broker_did_not_take_it(rabbitish_vhost: Vhost) -> None:
    rabbitish_vhost.fail_next_publish()
    with pytest.raises(NackError):
        place(rabbitish_vhost.url, "42")
    assert rabbitish_vhost.queue(ORDERS).ready == 0
