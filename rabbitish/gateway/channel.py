"""One channel of a client, as far as it is needed to open it anew at another leader.

What is under way is here in the order in which it was said: requests without an answer, and publishes without a
confirm, or of the open transaction. Two pairs of numbers are kept apart, those that the client counts with and those of
the leader that it has by now: confirms are of publishes that this leader was sent, delivery tags begin at 1 with each
leader. A leader that is told by channel.open which channel of the session it is, and up to which publish the client
knows what became of them, does not publish again what its journal has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, cast

from rabbitish.wire import methods
from rabbitish.wire.method import Method

_ON_FAILOVER = "x-cancel-on-ha-failover"


class Consumer(NamedTuple):
    """A consumer of a channel."""

    consume: methods.BasicConsume
    """As it would be said again: with the tag and the queue that it has."""
    prefetch: int
    """What held for it when it began."""
    global_prefetch: int
    """What held for its channel then."""

    @property
    def ends_with_leader(self) -> bool:
        """Whether it wants to be told of a change of leader instead of being carried over it."""
        return self.consume.arguments.get(_ON_FAILOVER) is True


Mode = methods.ConfirmSelect | methods.TxSelect
"""What a channel has been put into, in the words that do so: its publishes are kept."""


class Request:
    """Something that a leader answers."""

    __slots__ = ("after", "method", "quiet", "restores")

    def __init__(self, method: Method, *, after: int = 0, quiet: bool = False, restores: bool = False) -> None:
        self.method = method
        self.after = after  # so many publishes came before it
        self.quiet = quiet  # the answer is not for the client
        self.restores = restores  # it is ours, to bring a channel back


class Requests(deque[Request]):
    """Those without an answer, in order."""

    declares = 0
    """How many of them declare a queue."""

    def append(self, request: Request) -> None:
        """One more."""
        self.declares += type(request.method) is methods.QueueDeclare
        super().append(request)

    def popleft(self) -> Request:
        """The oldest has its answer."""
        request = super().popleft()
        self.declares -= type(request.method) is methods.QueueDeclare
        return request

    def clear(self) -> None:
        """Nobody will answer them."""
        self.declares = 0
        super().clear()


class Channel:
    """See the module."""

    __slots__ = (
        "agreed",
        "closing",
        "confirm_offset",
        "consumers",
        "global_prefetch",
        "kept",
        "last_queue",
        "last_tag",
        "log",
        "mode",
        "number",
        "opened",
        "orphan",
        "prefetch",
        "previous",
        "published",
        "requests",
        "stream",
        "tag_offset",
    )

    def __init__(self, number: int, stream: int = 0) -> None:
        self.number = number
        self.stream = stream  # which channel of the session it is, and no other before or after; 0: it is ours
        self.opened = False
        self.closing = False  # the leader has closed it, and the client has not agreed yet
        self.orphan = False  # so has a leader that is gone: the one there is knows nothing of it
        self.agreed = False  # the client has, and only its own wish to close it is to be answered
        self.previous: Channel | None = (
            None  # the one of the same number that the client has closed, but not the leader
        )
        self.requests = Requests()
        self.log: list[Request] = []  # those that were without one when the leader went
        # publishing
        self.mode: Mode | None = None
        self.published = 0  # in that mode, by the client's count
        self.kept: deque[bytes] = deque()  # the last of them, which are not confirmed, or not committed
        self.confirm_offset = 0  # the client's number of a publish is so much above the leader's
        # consuming
        self.consumers: dict[str, Consumer] = {}
        self.prefetch = 0
        self.global_prefetch = 0
        self.last_tag = 0  # the highest that the client has seen
        self.tag_offset = 0  # the client's tag is so much above the leader's
        self.last_queue = ""

    # ---- numbers

    def confirmed(self, tag: int, *, multiple: bool) -> tuple[int, int]:
        """The leader has answered publishes; the client's number for it, and bytes that need not be kept any more."""
        number = tag + self.confirm_offset
        if multiple or number == self.published - len(self.kept) + 1:
            return number, self.done_with(number)
        return number, 0

    def done_with(self, number: int) -> int:
        """Publishes up to this one need not be kept any more; their bytes."""
        count = number - (self.published - len(self.kept))
        freed = 0
        kept = self.kept
        for _ in range(min(count, len(kept))):
            freed += len(kept.popleft())
        return freed

    # ---- names

    def resolved(self, method: Method) -> Any:
        """A request with an empty name of a queue replaced by the one that it means, if that is known already."""
        return method if self.requests.declares else self.named(method)

    def named(self, method: Method) -> Any:
        """The same when everything before it has been answered."""
        name, known = self.last_queue, cast("Any", method)
        if type(method) not in _NAMING or known.queue or not name:
            return method
        if isinstance(method, methods.QueueBind | methods.QueueUnbind) and not method.routing_key:
            return replace(method, queue=name, routing_key=name)
        return replace(known, queue=name)

    @property
    def leaves(self) -> bool:
        """Whether the client wants it closed, and no leader has said that it is."""
        return any(type(request.method) is methods.ChannelClose for request in (*self.requests, *self.log))

    @property
    def open(self) -> methods.ChannelOpen:
        """What opens it at a leader."""
        return methods.ChannelOpen(f"{self.stream}:{self.published - len(self.kept)}")

    # ---- another leader

    def leave(self) -> None:
        """The leader is gone: what it did not answer is to be asked again."""
        self.log = [request for request in self.requests if not request.restores] + self.log
        self.requests.clear()
        if self.closing:
            self.orphan = True

    def steps(self) -> Iterator[Request]:
        """What brings it back to where it was; its answers are not for the client. Numbers begin anew."""
        self.confirm_offset = self.published - len(self.kept)
        self.tag_offset = self.last_tag
        if not self.opened:
            return  # the log begins with that
        yield from (Request(method, quiet=True, restores=True) for method in self._steps())

    def _steps(self) -> Iterator[Method]:
        yield self.open
        if self.mode is not None:
            yield self.mode
        prefetch = limit = 0
        limited: list[Consumer | Channel] = [*self.consumers.values(), self]
        for consumer in limited:
            if consumer.prefetch != prefetch:
                prefetch, limit = consumer.prefetch, 0  # which it takes back
                yield methods.BasicQos(prefetch_count=prefetch)
            if consumer.global_prefetch != limit:
                limit = consumer.global_prefetch
                yield methods.BasicQos(prefetch_count=limit, global_=True)
            if isinstance(consumer, Consumer):
                yield consumer.consume

    def under_way(self) -> Iterator[Request | bytes]:
        """Everything that was without an answer, in order; requests count as asked from then on."""
        log, self.log = self.log, []
        number = self.published - len(self.kept)
        kept = iter(tuple(self.kept))
        for request in log:
            while number < request.after and (publish := next(kept, None)) is not None:
                number += 1
                yield publish
            yield request
        yield from kept


_NAMING = frozenset(
    (
        methods.QueueBind,
        methods.QueueUnbind,
        methods.QueuePurge,
        methods.QueueDelete,
        methods.BasicConsume,
        methods.BasicGet,
    )
)
