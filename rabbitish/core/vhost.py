"""A virtual host: exchanges, queues and the bindings between them; declaring, deleting, routing.

Every operation checks first and changes afterwards, so that a refusal changes nothing. Refusals carry RabbitMQ's texts;
the order of checks is RabbitMQ's too (rabbit_channel), since a client may see either. Exclusive queues belong to an
opaque `owner` (the session). Permissions are not checked here but by the session, which knows the user.

Anything that could change where a message goes ends in `_rerouted`, which empties what sessions remember of routes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from rabbitish.core import admission, equivalence, naming
from rabbitish.core import arguments as args
from rabbitish.core.access.records import VhostRecord
from rabbitish.core.burials import Burials
from rabbitish.core.changes import Reason, Recorder
from rabbitish.core.chores import Chores
from rabbitish.core.consumer import Consumer
from rabbitish.core.deadlines import Deadlines
from rabbitish.core.exchange import Binding, DefaultExchange, Exchange, Target
from rabbitish.core.governor import Governor
from rabbitish.core.handle import QueueHandle
from rabbitish.core.host import Usage
from rabbitish.core.keeping import keepers
from rabbitish.core.message import Message
from rabbitish.core.queue import Queue
from rabbitish.core.routing import collect
from rabbitish.errors import ChannelError, ReplyCode
from rabbitish.values import Table

REPLY_TO = "amq.rabbitmq.reply-to"

PREDECLARED = (
    ("amq.direct", "direct", False),
    ("amq.fanout", "fanout", False),
    ("amq.topic", "topic", False),
    ("amq.headers", "headers", False),
    ("amq.match", "headers", False),
    ("amq.rabbitmq.trace", "topic", True),
)


class RouteMemory(Protocol):
    """What sessions of a user remember of where publishes go."""

    def clear(self) -> None:
        """Any of it may be wrong now."""


class Vhost:
    """The namespace that a connection works in."""

    def __init__(
        self,
        name: str,
        *,
        dirty: list[Queue],
        deadlines: Deadlines,
        chores: Chores,
        usage: Usage,
        token: Callable[[], str],
    ) -> None:
        self.name = name
        self.record = VhostRecord(name)
        self.governor = Governor(self)
        self.dirty = dirty
        self.deadlines = deadlines
        self.chores = chores
        self.usage = usage
        self.recorder: Recorder | None = None
        self.queues: dict[str, Queue] = {}
        self.replies: dict[str, Target] = {}  # direct reply-to: waiting requesters by their routing key
        self.route_memories: dict[str, RouteMemory] = {}  # by user
        self._token = token
        self._sources: dict[Queue | Exchange, dict[Exchange, int]] = {}  # which exchanges have bindings to it
        self._owned: dict[object, dict[Queue, None]] = {}  # exclusive queues by their connection
        self._gone: list[Consumer] = []
        self._quorums = 0  # how many quorum queues there are
        self._burials = Burials(self)
        self.default_exchange: Exchange = DefaultExchange(self.find_target)
        self.exchanges: dict[str, Exchange] = {"": self.default_exchange}
        for exchange_name, kind, internal in PREDECLARED:
            self.exchanges[exchange_name] = Exchange(
                exchange_name, kind, durable=True, auto_delete=False, internal=internal, arguments={}
            )

    def forget_routes(self) -> None:
        """What sessions remember of routes may be wrong now."""
        self._rerouted()

    def clear(self) -> None:
        """Delete everything in it, since it goes."""
        for queue in list(self.queues.values()):
            self.drop_queue(queue)
        for exchange in list(self.exchanges.values()):
            if exchange.name in self.exchanges and exchange.name and not exchange.name.startswith("amq."):
                self._drop_exchange(exchange)

    def _rerouted(self) -> None:
        for memory in self.route_memories.values():
            memory.clear()
        self._burials.rerouted()

    # ---- looking up

    def find_target(self, name: str) -> Target | None:
        """The queue of that name, or the requester waiting under that direct reply-to name."""
        return self.queues.get(name) or self.replies.get(name)

    def queue(self, name: str, owner: object) -> Queue:
        """The queue of that name. ChannelError: 404 when there is none, 405 when it is another connection's."""
        queue = self.queues.get(name)
        if queue is None:
            raise ChannelError(ReplyCode.NOT_FOUND, f"no queue '{name}' in vhost '{self.name}'")
        self._check_owner(queue, owner)
        return queue

    def _check_owner(self, queue: Queue, owner: object) -> None:
        if queue.owner is not None and queue.owner is not owner:
            raise equivalence.resource_locked(queue.name, self.name)

    def exchange(self, name: str) -> Exchange:
        """The exchange of that name, "" included. ChannelError: 404 when there is none."""
        exchange = self.exchanges.get(name)
        if exchange is None:
            raise ChannelError(ReplyCode.NOT_FOUND, f"no exchange '{name}' in vhost '{self.name}'")
        return exchange

    # ---- exchanges

    def declare_exchange(
        self, name: str, kind: str, *, durable: bool, auto_delete: bool, internal: bool, arguments: Table
    ) -> Exchange:
        """Declare an exchange, or find one that is equivalent. ChannelError: 403 for a reserved name, 406."""
        naming.check_exchange(name, kind)
        exchange = self.exchanges.get(name)
        if exchange is not None:
            equivalence.check_exchange(
                exchange,
                self.name,
                type_=kind,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                arguments=arguments,
            )
            return exchange
        naming.check_name("exchange", name)
        return self.add_exchange(
            name, kind, durable=durable, auto_delete=auto_delete, internal=internal, arguments=arguments
        )

    def add_exchange(
        self, name: str, kind: str, *, durable: bool, auto_delete: bool, internal: bool, arguments: Table
    ) -> Exchange:
        """Make an exchange whose name is free. ChannelError: 406 for its arguments."""
        args.alternate_exchange(name, self.name, arguments)
        exchange = Exchange(
            name, kind, durable=durable, auto_delete=auto_delete, internal=internal, arguments=arguments
        )
        self.exchanges[name] = exchange
        self.governor.govern_exchange(exchange)
        if durable and self.recorder is not None:
            self.recorder.exchange_declared(self.name, exchange)
        self._rerouted()
        return exchange

    def delete_exchange(self, name: str, *, if_unused: bool) -> None:
        """Delete an exchange and its bindings; no error when there is none. ChannelError: 403, 406 while bound."""
        naming.check_deletable(name, self.name)
        exchange = self.exchanges.get(name)
        if exchange is None:
            return
        if if_unused and exchange.bound:
            raise ChannelError(ReplyCode.PRECONDITION_FAILED, f"exchange '{name}' in vhost '{self.name}' in use")
        self._drop_exchange(exchange)

    def _drop_exchange(self, exchange: Exchange) -> None:
        for binding in exchange.bindings():
            self._count_source(binding.destination, exchange, -1)
        self._forget_exchange(exchange)
        self._unbind_all(exchange)
        self._rerouted()

    def _forget_exchange(self, exchange: Exchange) -> None:
        del self.exchanges[exchange.name]
        if exchange.durable and self.recorder is not None:
            self.recorder.exchange_deleted(self.name, exchange)

    # ---- queues

    def declare_queue(
        self,
        name: str,
        *,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Table,
        owner: object,
        now: int,
    ) -> Queue:
        """Declare a queue, or find one that is equivalent; an empty name is made up. ChannelError: 403, 405, 406."""
        return self.declare_named_queue(
            self.name_for_queue(name, arguments),
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=arguments,
            owner=owner,
            now=now,
        )

    def name_for_queue(self, name: str, arguments: Table) -> str:
        """The name that a declare means; an empty one is made up. ChannelError: 403 for a reserved name, 406."""
        if name:
            naming.check_name("queue", name)
            return name
        args.check_server_named(arguments)
        return f"amq.gen-{self._token()}"

    def with_default_type(self, arguments: Table, *, durable: bool, exclusive: bool, auto_delete: bool) -> Table:
        """A declare's arguments, with the virtual host's default queue type where they have none and it can be that."""
        default = self.record.default_queue_type
        if default is None or "x-queue-type" in arguments:
            return arguments
        if default != "classic" and (exclusive or auto_delete or not durable):
            return arguments
        return {**arguments, "x-queue-type": default}

    def check_queue_limit(self, name: str) -> None:
        """ChannelError 406: there are as many queues as there may be."""
        most = self.record.max_queues
        if most is not None and len(self.queues) >= most:
            raise ChannelError(
                ReplyCode.PRECONDITION_FAILED,
                f"cannot declare queue '{name}': queue limit in vhost '{self.name}' ({most}) is reached",
            )

    def declare_named_queue(
        self,
        name: str,
        *,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Table,
        owner: object,
        now: int,
    ) -> Queue:
        """The same with a name from `name_for_queue`.

        An exclusive queue is as durable as its connection, that is, not (RabbitMQ does the same).
        """
        durable = durable and not exclusive
        queue = self.queues.get(name)
        if queue is not None:
            equivalence.check_queue(
                queue,
                self.name,
                durable=durable,
                auto_delete=auto_delete,
                owner=owner if exclusive else None,
                arguments=arguments,
            )
            queue.touch(now)
            return queue
        return self.add_queue(
            name,
            durable=durable,
            auto_delete=auto_delete,
            arguments=arguments,
            owner=owner if exclusive else None,
            now=now,
        )

    def add_queue(
        self, name: str, *, durable: bool, auto_delete: bool, arguments: Table, owner: object | None, now: int
    ) -> Queue:
        """Make a queue whose name is free. ChannelError: 406 for its arguments."""
        options = args.queue_options(
            name, self.name, arguments, durable=durable, exclusive=owner is not None, auto_delete=auto_delete
        )
        queue = Queue(name, self, options, arguments, durable=durable, auto_delete=auto_delete, owner=owner, now=now)
        self.queues[name] = queue
        self._quorums += options.quorum
        if owner is not None:
            self._owned.setdefault(owner, {})[queue] = None
        if durable and self.recorder is not None:
            self.recorder.queue_declared(self.name, queue)
        self.governor.govern_queue(queue, now)
        queue.touch(now)
        self._rerouted()
        return queue

    def passive_queue(self, name: str, owner: object, now: int) -> Queue:
        """Find a queue for a passive declare, which counts as use. ChannelError: 404, 405."""
        queue = self.queue(name, owner)
        queue.touch(now)
        return queue

    def delete_queue(self, name: str, owner: object, now: int, *, if_unused: bool, if_empty: bool) -> int:
        """Delete a queue; how many messages were ready (0 if there is none). ChannelError: 405, 406; see admission."""
        queue = self.queues.get(name)
        if queue is None:
            return 0
        self._check_owner(queue, owner)
        queue.settle(now)
        admission.check_conditions(queue, self.name, if_unused=if_unused, if_empty=if_empty)
        return self.drop_queue(queue)

    def drop_queue(self, queue: Queue) -> int:
        """Take a queue away with its bindings; its consumers are told when this batch of input is done."""
        if queue.deleted:
            return 0
        del self.queues[queue.name]
        self._quorums -= queue.options.quorum
        if queue.durable and self.recorder is not None:
            self.recorder.queue_deleted(queue)
        if queue.owner is not None:
            self._owned[queue.owner].pop(queue)
        self._gone += queue.consumers
        self._unbind_all(queue)
        self._rerouted()
        return queue.close()

    def idle(self, queue: Queue) -> None:
        """A queue's x-expires has passed."""
        self.drop_queue(queue)

    def consume(self, queue: QueueHandle, consumer: Consumer) -> None:
        """Register a consumer. ChannelError: 403 when either it or one that is there wants the queue for itself."""
        admission.check_consumer(queue, self.name, consumer)
        queue.add_consumer(consumer)

    def cancel(self, queue: QueueHandle, consumer: Consumer, now: int) -> None:
        """Take a consumer out; an auto-delete queue goes with its last one."""
        if queue.deleted:
            return
        queue.remove_consumer(consumer, now)
        if queue.auto_delete and not len(queue.consumers):
            self.drop_queue(self.queues[queue.name])

    def release_owner(self, owner: object) -> None:
        """A connection has gone: its exclusive queues go with it."""
        for queue in list(self._owned.get(owner, ())):
            self.drop_queue(queue)
        self._owned.pop(owner, None)

    def disown(self, owner: object) -> None:
        """A connection goes elsewhere with the broker's end: what was its own stays, and is nobody's."""
        for queue in self._owned.pop(owner, ()):
            queue.owner = None

    def tell_consumers(self) -> None:
        """Tell the consumers of queues that have gone."""
        while self._gone:
            gone, self._gone = self._gone, []
            for consumer in gone:
                consumer.queue_gone()

    # ---- bindings

    def bind(self, source_name: str, destination: Queue | Exchange, routing_key: str, arguments: Table) -> None:
        """Bind; again is no error. ChannelError: 404 for a missing source, 406 for arguments that the type refuses."""
        source = self.exchange(source_name)
        binding = Binding(source, destination, routing_key, arguments)
        if source.bind(binding):
            self._count_source(destination, source, 1)
            if self.recorder is not None and source.durable and destination.durable:
                self.recorder.bound(self.name, binding)
            self._rerouted()

    def unbind(self, source_name: str, destination: Queue | Exchange, routing_key: str, arguments: Table) -> None:
        """Undo a binding; a missing one is no error. An auto-delete exchange goes with the last binding from it."""
        source = self.exchange(source_name)
        binding = source.unbind(destination, routing_key, arguments)
        if binding is not None:
            self._count_source(destination, source, -1)
            if self.recorder is not None and source.durable and destination.durable:
                self.recorder.unbound(self.name, binding)
            if source.auto_delete and not source.bound:
                self._drop_exchange(source)
            self._rerouted()

    def is_bound(self, source_name: str, destination: Queue | Exchange, routing_key: str, arguments: Table) -> bool:
        """Whether there is just this binding. ChannelError: 404 for a missing source."""
        return self.exchange(source_name).find(destination, routing_key, arguments) is not None

    def _count_source(self, destination: Any, source: Exchange, change: int) -> None:
        counts = self._sources.setdefault(destination, {})
        counts[source] = counts.get(source, 0) + change
        if not counts[source]:
            del counts[source]
            if not counts:
                del self._sources[destination]

    def _unbind_all(self, destination: Queue | Exchange) -> None:
        """Undo the bindings to what goes; an auto-delete exchange goes with its last one, and so on up the chain."""
        waiting = [destination]
        for going in waiting:  # grows while it is walked
            for source in self._sources.pop(going, {}):
                source.unbind_destination(going)
                if source.auto_delete and not source.bound:
                    self._forget_exchange(source)
                    waiting.append(source)

    def sources(self, destination: Queue | Exchange) -> list[Exchange]:
        """The exchanges that have bindings to a queue or exchange."""
        return list(self._sources.get(destination, ()))

    # ---- direct reply-to

    def add_reply_target(self, target: Target) -> None:
        """A requester waits for answers under its name."""
        self.replies[target.name] = target
        self._rerouted()

    def remove_reply_target(self, target: Target) -> None:
        """A requester waits no more."""
        del self.replies[target.name]
        self._rerouted()

    # ---- messages

    def route(self, exchange: Exchange, routing_keys: Iterable[str], headers: Table) -> list[Target]:
        """The queues that a message goes to, each once."""
        return list(collect(exchange, routing_keys, headers, self.exchanges.get))

    def bury(self, queue: Queue, message: Message, reason: Reason, now: int) -> None:
        """Send a message that left `queue` to its dead-letter exchange, if that exists."""
        self._burials.bury(queue, message, reason, now)

    def record_published(self, targets: Iterable[Target], message: Message, now: int, *, keep: bool = False) -> None:
        """Have it recorded that a message is about to go to these targets, where that must survive.

        `keep`: as if it were persistent.
        """
        keep = keep or message.stamp.persistent
        if self.recorder is not None and (keep or self._quorums):
            queues = keepers(targets, persistent=keep)
            if queues:
                self.recorder.published(queues, [message], now)
