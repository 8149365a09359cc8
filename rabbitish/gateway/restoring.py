"""Brings a session back to where it was at a leader that has just let it in.

    what ended with the last leader is declared on a channel of its own -> the client's channels are opened, with
    confirms, limits and consumers -> each is asked again what was under way on it

A step that is refused takes its channel down. A declare or binding that cannot be is left out. A consumer that cannot
be is cancelled, if the client understands that, and the channel begins anew without it; else the channel is closed, as
the new leader has it. Until all is done the client is not heard.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from rabbitish.gateway.channel import Channel, Request
from rabbitish.wire import methods
from rabbitish.wire.method import Method

if TYPE_CHECKING:
    from rabbitish.gateway.session import Gateway

_SETUP = 1
_AT_ONCE = 100


class Restoring:
    """See the module."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.setup: Channel | None = None
        """The channel on which things are declared; there is no other as long as there is this one."""
        self._to_declare: deque[Method] = deque()  # on it, and not said yet
        self._back: set[Channel] = set()  # channels that are on their way back

    @property
    def at_work(self) -> bool:
        """Whether it is not done yet."""
        return self.setup is not None or bool(self._back)

    def begin(self) -> None:
        """A leader has let the session in."""
        gateway = self._gateway
        for channel in gateway.channels.values():
            for tag, consumer in list(channel.consumers.items()):
                if consumer.ends_with_leader:
                    self._cancel(channel, tag)
        self._to_declare = deque(gateway.topology.steps())
        if self._to_declare:
            self.setup = Channel(_SETUP)
            self._send(self.setup, [_open(), *self._next_steps()])
        else:
            self._open_channels()

    def _next_steps(self) -> list[Request]:
        """Some of what is left: one that is refused takes those down with it that are under way."""
        left = self._to_declare
        return [Request(left.popleft(), restores=True) for _ in range(min(len(left), _AT_ONCE))]

    def _cancel(self, channel: Channel, tag: str) -> None:
        """Tell the client that a consumer has ended, if it can be told."""
        self._gateway.topology.consumer_gone(channel.consumers.pop(tag).consume.queue)
        if self._gateway.greeting.capable("consumer_cancel_notify"):
            self._gateway.say_to_client(channel.number, methods.BasicCancel(consumer_tag=tag, nowait=True))

    def _send(self, channel: Channel, steps: list[Request]) -> None:
        for step in steps:
            self._gateway.ask(channel, step)

    def _open_channels(self) -> None:
        self.setup = None
        gateway = self._gateway
        gateway.ask_again_on_0()
        for channel in gateway.channels.values():
            if not channel.orphan:
                self._bring_back(channel)

    def _bring_back(self, channel: Channel) -> None:
        steps = list(channel.steps())
        if steps:
            self._back.add(channel)
            self._send(channel, steps)
        else:
            self._gateway.ask_again(channel)

    def answered(self, channel: Channel) -> None:
        """A step is done."""
        if channel.requests:
            return
        if channel is not self.setup:
            self._back.discard(channel)
            self._gateway.ask_again(channel)
        elif channel.opened:
            self._open_channels()
        elif self._to_declare:
            self._send(channel, self._next_steps())
        else:
            channel.opened = True  # all of it is declared: the answer to come is to its end
            self._send(channel, [Request(methods.ChannelClose(), restores=True)])

    def closed(self, channel: Channel) -> bool:
        """The leader has closed a channel; whether that is because of a step, and settled."""
        if channel is not self.setup and channel not in self._back:
            return False
        refused, *rest = channel.requests
        channel.requests.clear()
        if channel is self.setup:
            self._gateway.say_to_leader(channel.number, methods.ChannelCloseOk())
            self._send(channel, [_open(), *rest])
            return True
        self._back.discard(channel)
        if channel.leaves:  # which the client wanted
            self._gateway.say_to_leader(channel.number, methods.ChannelCloseOk())
            self._gateway.say_to_client(channel.number, methods.ChannelCloseOk())
            self._gateway.forget(channel)
            return True
        step = refused.method
        if not isinstance(step, methods.BasicConsume) or not self._gateway.greeting.capable("consumer_cancel_notify"):
            return False
        self._gateway.say_to_leader(channel.number, methods.ChannelCloseOk())
        self._cancel(channel, step.consumer_tag)
        self._bring_back(channel)
        return True


def _open() -> Request:
    return Request(methods.ChannelOpen(), restores=True)
