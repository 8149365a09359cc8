"""The methods of class channel (20).

Arguments have the specification's names with underscores; those that it reserves have the names of the older versions
that still used them, as in RabbitMQ. channel.close is declared like connection.close, and for the same reasons.
"""

from __future__ import annotations

from rabbitish.wire.codec import Bit, LongStr, Short, ShortStr
from rabbitish.wire.method import Method, method


@method(20, 10, replies=("channel.open-ok",))
class ChannelOpen(Method):
    """Open the channel that the frame names. The argument means nothing any more."""

    out_of_band: ShortStr = ""


@method(20, 11)
class ChannelOpenOk(Method):
    """The channel is open. The argument means nothing any more."""

    channel_id: LongStr = b""


@method(20, 20, replies=("channel.flow-ok",))
class ChannelFlow(Method):
    """Ask the other side to stop (active off) or go on sending content."""

    active: Bit = False


@method(20, 21)
class ChannelFlowOk(Method):
    """The flow is now as it says."""

    active: Bit = False


@method(20, 40, replies=("channel.close-ok",))
class ChannelClose(Method):
    """Either side: the end of the channel, and which method was to blame (0, 0 if none was)."""

    reply_code: Short = 0
    reply_text: ShortStr = ""
    class_id_: Short = 0
    method_id_: Short = 0


@method(20, 41)
class ChannelCloseOk(Method):
    """The other side has seen the close; the number is free again."""
