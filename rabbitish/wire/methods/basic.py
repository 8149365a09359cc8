"""The methods of class basic (60): publishing, consuming, acknowledging.

Content follows those marked has_content: a header frame with the properties, then the body. Their short strings are
not checked to be UTF-8, as in RabbitMQ. basic.qos's argument global is `global_` here, as Python keeps that word.
"""

from __future__ import annotations

from dataclasses import field

from rabbitish.wire.codec import Bit, Long, LongLong, Short, ShortStr, TableField
from rabbitish.wire.method import Method, method


@method(60, 10, replies=("basic.qos-ok",))
class BasicQos(Method):
    """Limit unacknowledged deliveries, for each later consumer or for the channel (global). 0: no limit."""

    prefetch_size: Long = 0
    prefetch_count: Short = 0
    global_: Bit = False


@method(60, 11)
class BasicQosOk(Method):
    """The limit holds."""


@method(60, 20, replies=("basic.consume-ok",))
class BasicConsume(Method):
    """Start a consumer. An empty tag: the server picks one."""

    ticket: Short = 0
    queue: ShortStr = ""
    consumer_tag: ShortStr = ""
    no_local: Bit = False
    no_ack: Bit = False
    exclusive: Bit = False
    nowait: Bit = False
    arguments: TableField = field(default_factory=dict)


@method(60, 21)
class BasicConsumeOk(Method):
    """The consumer's tag."""

    consumer_tag: ShortStr = ""


@method(60, 30, replies=("basic.cancel-ok",))
class BasicCancel(Method):
    """End a consumer; from the server, tell that it ended with its queue (RabbitMQ's)."""

    consumer_tag: ShortStr = ""
    nowait: Bit = False


@method(60, 31)
class BasicCancelOk(Method):
    """No delivery to the consumer follows."""

    consumer_tag: ShortStr = ""


@method(60, 40, has_content=True)
class BasicPublish(Method):
    """Publish the content that follows."""

    ticket: Short = 0
    exchange: ShortStr = ""
    routing_key: ShortStr = ""
    mandatory: Bit = False
    immediate: Bit = False


@method(60, 50, has_content=True)
class BasicReturn(Method):
    """The content that follows was mandatory and could not be routed."""

    reply_code: Short = 0
    reply_text: ShortStr = ""
    exchange: ShortStr = ""
    routing_key: ShortStr = ""


@method(60, 60, has_content=True)
class BasicDeliver(Method):
    """The content that follows goes to a consumer."""

    consumer_tag: ShortStr = ""
    delivery_tag: LongLong = 0
    redelivered: Bit = False
    exchange: ShortStr = ""
    routing_key: ShortStr = ""


@method(60, 70, replies=("basic.get-ok", "basic.get-empty"))
class BasicGet(Method):
    """Take one message from a queue."""

    ticket: Short = 0
    queue: ShortStr = ""
    no_ack: Bit = False


@method(60, 71, has_content=True)
class BasicGetOk(Method):
    """The content that follows is the message; `message_count` more are ready."""

    delivery_tag: LongLong = 0
    redelivered: Bit = False
    exchange: ShortStr = ""
    routing_key: ShortStr = ""
    message_count: Long = 0


@method(60, 72)
class BasicGetEmpty(Method):
    """There was none. The argument means nothing any more."""

    cluster_id: ShortStr = ""


@method(60, 80)
class BasicAck(Method):
    """A delivery, or all up to it (multiple), is done; from the server, publishes are confirmed (RabbitMQ's)."""

    delivery_tag: LongLong = 0
    multiple: Bit = False


@method(60, 90)
class BasicReject(Method):
    """A delivery is refused."""

    delivery_tag: LongLong = 0
    requeue: Bit = True


@method(60, 100)
class BasicRecoverAsync(Method):
    """basic.recover without an answer."""

    requeue: Bit = False


@method(60, 110, replies=("basic.recover-ok",))
class BasicRecover(Method):
    """Deliver again what the channel has not acknowledged."""

    requeue: Bit = False


@method(60, 111)
class BasicRecoverOk(Method):
    """It will be delivered again."""


@method(60, 120)
class BasicNack(Method):
    """RabbitMQ's: a delivery, or all up to it, is refused; from the server, publishes were."""

    delivery_tag: LongLong = 0
    multiple: Bit = False
    requeue: Bit = True
