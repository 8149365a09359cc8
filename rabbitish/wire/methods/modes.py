"""The methods of the small classes: tx (90) and confirm (85) switch a channel's mode, access (30) is a relic.

AMQP 0-9-1 dropped class access, but old clients still ask for a ticket before anything else, and RabbitMQ answers them.
"""

from __future__ import annotations

from rabbitish.wire.codec import Bit, Short, ShortStr
from rabbitish.wire.method import Method, method


@method(30, 10, replies=("access.request-ok",))
class AccessRequest(Method):
    """Ask for access to a realm."""

    realm: ShortStr = "/data"
    exclusive: Bit = False
    passive: Bit = True
    active: Bit = True
    write: Bit = True
    read: Bit = True


@method(30, 11)
class AccessRequestOk(Method):
    """The ticket, which many methods take and none looks at."""

    ticket: Short = 1


@method(85, 10, replies=("confirm.select-ok",))
class ConfirmSelect(Method):
    """Have every publish on the channel confirmed from now on."""

    nowait: Bit = False


@method(85, 11)
class ConfirmSelectOk(Method):
    """They are, counted from 1."""


@method(90, 10, replies=("tx.select-ok",))
class TxSelect(Method):
    """Make the channel transactional."""


@method(90, 11)
class TxSelectOk(Method):
    """It is."""


@method(90, 20, replies=("tx.commit-ok",))
class TxCommit(Method):
    """Do the transaction's publishes and acknowledgements, and begin the next one."""


@method(90, 21)
class TxCommitOk(Method):
    """They are done."""


@method(90, 30, replies=("tx.rollback-ok",))
class TxRollback(Method):
    """Forget the transaction's publishes and acknowledgements, and begin the next one."""


@method(90, 31)
class TxRollbackOk(Method):
    """They are forgotten."""
