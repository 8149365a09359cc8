"""A recorder that keeps what would be on disk, and is strict about what it is told.

It knows of every message with a number in which queues it is, how often it came back to each, and whether it is out
with somebody; what is told must fit into that. `compare` holds the whole of it against a virtual host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rabbitish.core.changes import Reason
from rabbitish.core.exchange import Binding, Exchange
from rabbitish.core.message import Message
from rabbitish.core.paging import Page
from rabbitish.core.queue import Queue
from rabbitish.core.vhost import Vhost

if TYPE_CHECKING:
    from .fakes import Held

# Whether what leaves for this reason was out with somebody. DELIVERY_LIMIT: it may have been when the broker ended.
_WAS_OUT = {
    Reason.ACKNOWLEDGED: True,
    Reason.TAKEN: False,
    Reason.COMMITTED: True,
    Reason.EXPIRED: False,
    Reason.REJECTED: True,
    Reason.MAXLEN: False,
    Reason.PURGED: False,
    Reason.REFUSED: False,
}


class Ledger:
    """See Recorder."""

    def __init__(self) -> None:
        self.position = 0
        self.vhosts: set[str] = set()
        self.exchanges: dict[tuple[str, str], Exchange] = {}
        self.queues: dict[tuple[str, str], Queue] = {}
        self.bindings: set[Binding] = set()
        self.contents: dict[Queue, dict[int, int]] = {}  # the numbers of messages, and how often each came back
        self.out: dict[Queue, set[int]] = {}  # the numbers of those that were handed out
        self.left: Counter[Reason] = Counter()

    def vhost_added(self, vhost: str) -> None:
        """See Recorder."""
        assert vhost not in self.vhosts
        self.vhosts.add(vhost)

    def vhost_removed(self, vhost: str) -> None:
        """See Recorder."""
        self.vhosts.remove(vhost)

    def exchange_declared(self, vhost: str, exchange: Exchange) -> None:
        """See Recorder."""
        assert exchange.durable and (vhost, exchange.name) not in self.exchanges
        self.exchanges[vhost, exchange.name] = exchange

    def exchange_deleted(self, vhost: str, exchange: Exchange) -> None:
        """See Recorder."""
        assert self.exchanges.pop((vhost, exchange.name)) is exchange
        self._drop_bindings(exchange)

    def queue_declared(self, vhost: str, queue: Queue) -> None:
        """See Recorder."""
        assert queue.durable and (vhost, queue.name) not in self.queues
        self.queues[vhost, queue.name] = queue
        self.contents[queue] = {}
        self.out[queue] = set()

    @property
    def oldest(self) -> int:
        """See Recorder."""
        return min((lsn for contents in self.contents.values() for lsn in contents), default=self.position + 1)

    def queue_changed(self, vhost: str, queue: Queue) -> None:
        """See Recorder."""
        assert self.queues[vhost, queue.name] is queue

    def queue_deleted(self, queue: Queue) -> None:
        """See Recorder."""
        self.queues = {key: known for key, known in self.queues.items() if known is not queue}
        del self.contents[queue], self.out[queue]
        self._drop_bindings(queue)

    def _drop_bindings(self, end: Queue | Exchange) -> None:
        self.bindings = {binding for binding in self.bindings if end not in (binding.source, binding.destination)}

    def bound(self, vhost: str, binding: Binding) -> None:
        """See Recorder."""
        assert binding.source.durable and binding.destination.durable and binding not in self.bindings
        self.bindings.add(binding)

    def unbound(self, vhost: str, binding: Binding) -> None:
        """See Recorder."""
        self.bindings.remove(binding)

    def published(self, queues: Sequence[Queue], messages: Sequence[Message], now: int, *, alike: bool = True) -> None:
        """See Recorder."""
        assert queues and len(set(queues)) == len(queues)
        for message in messages:
            assert message.stamp.persistent or any(queue.options.quorum for queue in queues)
            assert not message.lsn
            self.position += 1
            message.lsn = self.position
            for queue in queues:
                self.contents[queue][message.lsn] = 0

    def removed(self, queue: Queue, messages: Sequence[Message], reason: Reason) -> None:
        """See Recorder."""
        assert messages
        for message in messages:
            self._leave(queue, message.lsn, reason)

    def pages_removed(self, queue: Queue, pages: Sequence[Page], reason: Reason) -> None:
        """See Recorder."""
        for page in pages:
            ranges = page.ranges
            assert len(ranges) >= 2 and sum(ranges[1::2]) == page.count
            for first, count in zip(ranges[::2], ranges[1::2], strict=True):
                for lsn in range(first, first + count):
                    assert lsn not in self.out[queue]
                    self._leave(queue, lsn, reason)

    def _leave(self, queue: Queue, lsn: int, reason: Reason) -> None:
        assert isinstance(reason, Reason)
        del self.contents[queue][lsn]
        was_out = lsn in self.out[queue]
        assert was_out is _WAS_OUT.get(reason, was_out), (lsn, reason)
        self.out[queue].discard(lsn)
        self.left[reason] += 1
        self.position += 1

    def delivered(self, queue: Queue, messages: Sequence[Message]) -> None:
        """See Recorder."""
        assert messages
        for message in messages:
            assert message.lsn in self.contents[queue] and message.lsn not in self.out[queue]
            self.out[queue].add(message.lsn)
        self.position += 1

    def returned(self, queue: Queue, message: Message, returns: int) -> None:
        """See Recorder."""
        assert self.contents[queue][message.lsn] < returns
        self.contents[queue][message.lsn] = returns
        self.out[queue].remove(message.lsn)
        self.position += 1

    def compare(self, vhost: Vhost, held: Iterable[Held]) -> None:
        """Assert that what is on disk is what there is: in the queues, and `held` by clients."""
        exchanges = {name: exchange for name, exchange in vhost.exchanges.items() if exchange.durable}
        ours = {name: exchange for (of, name), exchange in self.exchanges.items() if of == vhost.name}
        assert ours == {name: one for name, one in exchanges.items() if name and not name.startswith("amq.")}
        queues = {name: queue for name, queue in vhost.queues.items() if queue.durable}
        assert queues == {name: queue for (of, name), queue in self.queues.items() if of == vhost.name}
        bindings = {
            binding for exchange in exchanges.values() for binding in exchange.bindings() if binding.destination.durable
        }
        assert bindings == {one for one in self.bindings if exchanges.get(one.source.name) is one.source}
        unacked: dict[Queue, list[int]] = {}
        for one in held:
            unacked.setdefault(one.queue, []).append(one.message.lsn)
        waiting: dict[Queue, list[int]] = {}
        for death in vhost._burials._waiting:  # for a queue that takes them
            waiting.setdefault(death.queue, []).append(death.message.lsn)
        for queue in queues.values():
            late = waiting.get(queue, [])
            out = Counter([*unacked.get(queue, ()), *(lsn for lsn in late if lsn in self.out[queue])])
            there = Counter([message.lsn for message in queue] + late) + Counter(unacked.get(queue))
            del there[0], out[0]
            assert there == Counter(self.contents[queue].keys())
            assert out == Counter(self.out[queue])
