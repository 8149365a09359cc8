"""Publishes that the broker has not confirmed yet, by their number on the channel.

Confirms come for one or for all up to a number, in any order. A message that comes back (basic.return) comes before its
confirm and without a number: it belongs to the oldest publish that is alike, which is then failed by its confirm.
"""

from __future__ import annotations

from rabbitish.client.errors import PublishNacked, PublishReturned
from rabbitish.client.protocol.promise import Promise


class Publish(Promise[None]):
    """One publish: what was sent, kept until its confirm."""

    __slots__ = ("body", "exchange", "mandatory", "number", "raw_properties", "retry", "returned", "routing_key")

    def __init__(
        self, exchange: str, routing_key: str, mandatory: bool, raw_properties: bytes, body: bytes, retry: bool = False
    ) -> None:
        self.done = False
        self.value = None
        self.error = None
        self.callback = None
        self.exchange = exchange
        self.routing_key = routing_key
        self.mandatory = mandatory
        self.raw_properties = raw_properties
        self.body = body
        self.returned: PublishReturned | None = None
        self.retry = retry
        """Whether it is to be published once more on the next connection, if this one is lost before the confirm."""
        self.number = 0
        """The caller's own."""


class Confirms:
    """The window of one channel."""

    __slots__ = ("published", "unconfirmed")

    def __init__(self) -> None:
        self.published = 0
        self.unconfirmed: dict[int, Publish] = {}

    def add(self, publish: Publish) -> None:
        """It is being sent."""
        self.published += 1
        self.unconfirmed[self.published] = publish

    def confirm(self, tag: int, *, multiple: bool, ack: bool = True) -> None:
        """A confirm has come. One for a publish that is not there is nobody's matter."""
        unconfirmed = self.unconfirmed
        if multiple:
            if tag == 0:
                tag = self.published
            settled = []
            for number in unconfirmed:
                if number > tag:
                    break
                settled.append(number)
            publishes = [unconfirmed.pop(number) for number in settled]
        else:
            publish = unconfirmed.pop(tag, None)
            publishes = [] if publish is None else [publish]
        for publish in publishes:
            if not ack:
                publish.fail(PublishNacked())
            elif publish.returned is not None:
                publish.fail(publish.returned)
            else:
                publish.keep(None)

    def return_(self, returned: PublishReturned, raw_properties: bytes, body: bytes) -> bool:
        """A message has come back; False: it is none of these."""
        alike = [
            publish
            for publish in self.unconfirmed.values()
            if publish.mandatory
            and publish.returned is None
            and publish.routing_key == returned.routing_key
            and publish.exchange == returned.exchange
            and publish.body == body
        ]
        if not alike:
            return False
        # The broker changes the properties of some (a direct reply-to's address), so they only break ties.
        same = (publish for publish in alike if publish.raw_properties == raw_properties)
        next(same, alike[0]).returned = returned
        return True
