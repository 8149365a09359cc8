"""The methods of class queue (50).

`ticket` belongs to access.request and is ignored everywhere. queue.unbind alone has no nowait.
"""

from __future__ import annotations

from dataclasses import field

from rabbitish.wire.codec import Bit, Long, Short, ShortStr, TableField
from rabbitish.wire.method import Method, method


@method(50, 10, replies=("queue.declare-ok",))
class QueueDeclare(Method):
    """Create a queue, or check that it exists (passive) or is as described. An empty name: the server picks one."""

    ticket: Short = 0
    queue: ShortStr = ""
    passive: Bit = False
    durable: Bit = False
    exclusive: Bit = False
    auto_delete: Bit = False
    nowait: Bit = False
    arguments: TableField = field(default_factory=dict)


@method(50, 11)
class QueueDeclareOk(Method):
    """The queue's name, its ready messages and its consumers."""

    queue: ShortStr = ""
    message_count: Long = 0
    consumer_count: Long = 0


@method(50, 20, replies=("queue.bind-ok",))
class QueueBind(Method):
    """Route what reaches the exchange to the queue."""

    ticket: Short = 0
    queue: ShortStr = ""
    exchange: ShortStr = ""
    routing_key: ShortStr = ""
    nowait: Bit = False
    arguments: TableField = field(default_factory=dict)


@method(50, 21)
class QueueBindOk(Method):
    """The binding exists."""


@method(50, 30, replies=("queue.purge-ok",))
class QueuePurge(Method):
    """Drop a queue's ready messages."""

    ticket: Short = 0
    queue: ShortStr = ""
    nowait: Bit = False


@method(50, 31)
class QueuePurgeOk(Method):
    """How many were dropped."""

    message_count: Long = 0


@method(50, 40, replies=("queue.delete-ok",))
class QueueDelete(Method):
    """Delete a queue."""

    ticket: Short = 0
    queue: ShortStr = ""
    if_unused: Bit = False
    if_empty: Bit = False
    nowait: Bit = False


@method(50, 41)
class QueueDeleteOk(Method):
    """How many ready messages went with it."""

    message_count: Long = 0


@method(50, 50, replies=("queue.unbind-ok",))
class QueueUnbind(Method):
    """Remove a binding."""

    ticket: Short = 0
    queue: ShortStr = ""
    exchange: ShortStr = ""
    routing_key: ShortStr = ""
    arguments: TableField = field(default_factory=dict)


@method(50, 51)
class QueueUnbindOk(Method):
    """The binding is gone."""
