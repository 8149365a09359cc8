"""Names that nobody may give to a queue or an exchange, and exchanges that nobody may touch; RabbitMQ's texts."""

from __future__ import annotations

from rabbitish.core import arguments as args
from rabbitish.core.exchange import KINDS
from rabbitish.errors import ChannelError, ReplyCode


def check_not_default(name: str) -> None:
    """ChannelError: 403 for the default exchange, which nobody may declare, delete or bind."""
    if not name:
        raise ChannelError(ReplyCode.ACCESS_REFUSED, "operation not permitted on the default exchange")


def check_exchange(name: str, kind: str) -> None:
    """What comes first in declaring an exchange. ConnectionFailure 503: an unknown type. ChannelError: 403."""
    args.check_exchange_type(kind, KINDS)
    check_not_default(name)


def check_deletable(name: str, vhost: str) -> None:
    """ChannelError: 403 for an exchange of our own."""
    check_not_default(name)
    if name.startswith("amq."):
        raise ChannelError(
            ReplyCode.ACCESS_REFUSED, f"deletion of system exchange '{name}' in vhost '{vhost}' not allowed"
        )


def check_name(kind: str, name: str) -> None:
    """ChannelError: 403 for the name of a new queue or exchange that is reserved."""
    if name.startswith("amq."):
        raise ChannelError(ReplyCode.ACCESS_REFUSED, f"{kind} name '{name}' contains reserved prefix 'amq.*'")
