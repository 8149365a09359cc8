"""Which messages survive a restart, and in which of the queues that they go to.

A persistent message does in durable queues. A quorum queue keeps everything, whatever its delivery mode says, as
RabbitMQ's does. A message has one number in the journal and is told of once, so one that is not persistent and goes to
a quorum queue survives in the durable classic queues beside it too.
"""

from __future__ import annotations

from collections.abc import Iterable

from rabbitish.core.exchange import Target
from rabbitish.core.queue import Queue


def keepers(targets: Iterable[Target], *, persistent: bool) -> list[Queue]:
    """Those of the targets in which such a message survives; one may have gone since it was routed to (tx)."""
    queues = [target for target in targets if target.durable and isinstance(target, Queue) and not target.deleted]
    return queues if persistent or any(queue.options.quorum for queue in queues) else []
