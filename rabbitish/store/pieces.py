"""What the records of a damaged journal add up to, as far as that can be known.

As replay.py, which this is but for holes. Behind a hole what was declared before it stays declared until the next whole
snapshot says otherwise, and a snapshot with a hole in it adds to what is known and takes nothing away. So what was
deleted in a hole may come back, and what was declared in one may be missing. A queue whose messages are there and whose
declaration is not is made up: nothing that can be read is left out for want of a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rabbitish.store.bodies import Bound, Codec, DeclaredExchange, DeclaredQueue
from rabbitish.store.declared import Declarations
from rabbitish.store.reader import PublishReader
from rabbitish.store.record import Record, SegmentHead, Type
from rabbitish.store.replay import Replay
from rabbitish.store.segments import Segment

_DEFAULT_VHOST = "/"
_DEFAULT_EXCHANGE = ""
_PREDECLARED = "amq."


class MadeUp(NamedTuple):
    """A queue whose declaration is lost."""

    queue: DeclaredQueue
    by_name: bool
    """Whether its name is known, from messages that were sent to it by that; else it is made up too."""


class Remains(Declarations):
    """What is declared, with holes."""

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self.certain = False
        """Whether everything is declared that was, and nothing else: a snapshot came since the last bad hole."""
        self.replaced: list[int] = []
        """Queues that must have gone in a hole, since there is another of that name."""
        self._numbers: dict[tuple[str, str], int] = {}

    @property
    def in_snapshot(self) -> bool:
        """Whether a snapshot has begun, and neither ended nor had a hole."""
        return self._before is not None

    def hole(self, *, harmless: bool) -> None:
        """Records are missing here; `harmless`: none that declared anything."""
        self.certain &= harmless
        self._add_to_before()

    def finish(self) -> None:
        """See Declarations. What a snapshot without an end tells counts."""
        self._add_to_before()

    def _add_to_before(self) -> None:
        if self._before is None:
            return
        found, self.declared, self._before = self.declared, self._before, None
        self._numbers = {(queue.vhost, queue.name): number for number, queue in self.declared.queues.items()}
        self.declared.vhosts.update(found.vhosts)
        for exchange in found.exchanges.values():
            self._take_exchange(exchange)
        for queue in found.queues.values():
            self._take_queue(queue)
        self.declared.bindings.update(found.bindings)
        self._lead_of = None

    def _snapshot_end(self, body: bytes) -> None:
        self.certain |= self._before is not None  # and no hole in between
        super()._snapshot_end(body)

    def _exchange_new(self, body: bytes) -> None:
        self._take_exchange(DeclaredExchange.decode(body, self._codec))

    def _take_exchange(self, exchange: DeclaredExchange) -> None:
        key = exchange.vhost, exchange.name
        if self.declared.exchanges.get(key, exchange) != exchange:
            self._drop_exchange(*key)
        self.declared.exchanges[key] = exchange

    def _queue_new(self, body: bytes) -> None:
        self._take_queue(DeclaredQueue.decode(body, self._codec))

    def _take_queue(self, queue: DeclaredQueue) -> None:
        name = queue.vhost, queue.name
        before = self._numbers.get(name)
        if before is not None and before != queue.number and before in self.declared.queues:
            self._drop_queue(before)
            self.replaced.append(before)
        self._numbers[name] = queue.number
        self.declared.queues[queue.number] = queue
        self.highest_queue = max(self.highest_queue, queue.number)


class Pieces(Replay):
    """Takes whole records in order, and is told of holes between them."""

    def __init__(self, codec: Codec, publishes: PublishReader) -> None:
        self._remains = Remains(codec)
        super().__init__(codec, publishes, self._remains)
        self.made_up: list[MadeUp] = []
        self.unbound: list[Bound] = []
        """Bindings from or to something whose declaration is lost."""
        self._called: dict[int, str] = {}  # queues without a declaration, by the name that messages were sent to

    @property
    def certain(self) -> bool:
        """See Remains."""
        return self._remains.certain

    @property
    def in_snapshot(self) -> bool:
        """See Remains."""
        return self._remains.in_snapshot

    def visit(self, head: SegmentHead, data: bytes, record: Record) -> None:
        """See Replay. In a segment that was written anew nobody can tell whether a snapshot is whole."""
        if head.generation and record.type in (Type.SNAPSHOT, Type.SNAPSHOT_END):
            return
        whole = record.type is Type.SNAPSHOT_END and self.in_snapshot
        super().visit(head, data, record)
        if whole:
            for number in self._contents.keys() - self.declared.queues.keys():
                del self._contents[number]
        self._forget_replaced()

    def _forget_replaced(self) -> None:
        while self._remains.replaced:
            self._contents.pop(self._remains.replaced.pop(), None)

    def hole(self, *, harmless: bool) -> None:
        """See Remains."""
        self._remains.hole(harmless=harmless)
        self._forget_replaced()

    def finish(self, segments: Sequence[tuple[SegmentHead, int]]) -> None:
        """See Replay."""
        self._remains.finish()
        self._forget_replaced()
        self._make_up_queues()
        self._drop_bindings_to_nothing()
        super().finish(segments)

    # ---- declarations

    def _drop_bindings_to_nothing(self) -> None:
        declared = self.declared
        queues = {(queue.vhost, queue.name) for queue in declared.queues.values()}
        for key, bound in list(declared.bindings.items()):
            source, to = (bound.vhost, bound.source), (bound.vhost, bound.destination)
            known = source in declared.exchanges or bound.source.startswith(_PREDECLARED)
            if bound.to_exchange:
                known &= to in declared.exchanges or bound.destination.startswith(_PREDECLARED)
            else:
                known &= to in queues
            if not known:
                del declared.bindings[key]
                self.unbound.append(bound)

    # ---- messages

    def _publish(self, segment: Segment, data: bytes, record: Record) -> None:
        super()._publish(segment, data, record)
        route = self._publishes.head(data, record.body, record.type).route
        address = route.address
        if len(route.queues) == 1 and address.exchange == _DEFAULT_EXCHANGE and not address.extra_keys:
            number = route.queues[0]
            if number not in self.declared.queues:
                self._called[number] = address.routing_key

    def _make_up_queues(self) -> None:
        vhosts = dict.fromkeys([*self.declared.vhosts, *(queue.vhost for queue in self.declared.queues.values())])
        vhost = next(iter(vhosts)) if vhosts and _DEFAULT_VHOST not in vhosts else _DEFAULT_VHOST
        names = {queue.name for queue in self.declared.queues.values() if queue.vhost == vhost}
        for number in sorted(self._contents.keys() - self.declared.queues.keys()):
            if not self._contents[number].live()[0]:
                continue
            called = self._called.get(number)
            by_name = called is not None and called not in names
            name = called if called is not None and by_name else f"salvaged-{number}"
            while name in names:
                name += "-again"
            names.add(name)
            queue = self.declared.queues[number] = DeclaredQueue(number, vhost, name, False, {})
            self.made_up.append(MadeUp(queue, by_name))
