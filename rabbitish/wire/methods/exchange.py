"""The methods of class exchange (40), with RabbitMQ's bindings between exchanges.

`ticket` belongs to access.request and is ignored everywhere. A type or an argument that RabbitMQ does not know is no
matter of the wire's.
"""

from __future__ import annotations

from dataclasses import field

from rabbitish.wire.codec import Bit, Short, ShortStr, TableField
from rabbitish.wire.method import Method, method


@method(40, 10, replies=("exchange.declare-ok",))
class ExchangeDeclare(Method):
    """Create an exchange, or check that it exists (passive) or is as described."""

    ticket: Short = 0
    exchange: ShortStr = ""
    type: ShortStr = "direct"
    passive: Bit = False
    durable: Bit = False
    auto_delete: Bit = False
    internal: Bit = False
    nowait: Bit = False
    arguments: TableField = field(default_factory=dict)


@method(40, 11)
class ExchangeDeclareOk(Method):
    """The exchange exists."""


@method(40, 20, replies=("exchange.delete-ok",))
class ExchangeDelete(Method):
    """Delete an exchange."""

    ticket: Short = 0
    exchange: ShortStr = ""
    if_unused: Bit = False
    nowait: Bit = False


@method(40, 21)
class ExchangeDeleteOk(Method):
    """The exchange is gone."""


@method(40, 30, replies=("exchange.bind-ok",))
class ExchangeBind(Method):
    """RabbitMQ's: route what reaches `source` on to the exchange `destination`."""

    ticket: Short = 0
    destination: ShortStr = ""
    source: ShortStr = ""
    routing_key: ShortStr = ""
    nowait: Bit = False
    arguments: TableField = field(default_factory=dict)


@method(40, 31)
class ExchangeBindOk(Method):
    """The binding exists."""


@method(40, 40, replies=("exchange.unbind-ok",))
class ExchangeUnbind(Method):
    """RabbitMQ's: remove a binding between exchanges."""

    ticket: Short = 0
    destination: ShortStr = ""
    source: ShortStr = ""
    routing_key: ShortStr = ""
    nowait: Bit = False
    arguments: TableField = field(default_factory=dict)


@method(40, 51)
class ExchangeUnbindOk(Method):
    """The binding is gone. Its id is 51 and not 41 in RabbitMQ, and so everywhere."""
