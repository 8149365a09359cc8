"""What the AMQP 0-9-1 XML specification says of methods, properties and constants, and what RabbitMQ adds.

Written down from amqp0-9-1.stripped.xml (github.com/rabbitmq/amqp-0.9.1-spec) and, for EXTENSIONS, from its extended
edition and RabbitMQ's amqp-rabbitmq-0.9.1.json: an independent second list to check rabbitish/wire against. One method
a line:

    class-id method-id name  s: synchronous, c: carries content  replies  argument:type ...

with the types that the specification's domains stand for, by the letters in TYPES.
"""

from __future__ import annotations

from typing import NamedTuple

TYPES = {
    "b": "bit",
    "o": "octet",
    "s": "short",
    "l": "long",
    "q": "longlong",
    "S": "shortstr",
    "L": "longstr",
    "T": "table",
    "t": "timestamp",
}

METHODS = """
10 10 connection.start s start-ok version-major:o version-minor:o server-properties:T mechanisms:L locales:L
10 11 connection.start-ok s - client-properties:T mechanism:S response:L locale:S
10 20 connection.secure s secure-ok challenge:L
10 21 connection.secure-ok s - response:L
10 30 connection.tune s tune-ok channel-max:s frame-max:l heartbeat:s
10 31 connection.tune-ok s - channel-max:s frame-max:l heartbeat:s
10 40 connection.open s open-ok virtual-host:S reserved-1:S reserved-2:b
10 41 connection.open-ok s - reserved-1:S
10 50 connection.close s close-ok reply-code:s reply-text:S class-id:s method-id:s
10 51 connection.close-ok s -
10 60 connection.blocked - - reason:S
10 61 connection.unblocked - -
20 10 channel.open s open-ok reserved-1:S
20 11 channel.open-ok s - reserved-1:L
20 20 channel.flow s flow-ok active:b
20 21 channel.flow-ok - - active:b
20 40 channel.close s close-ok reply-code:s reply-text:S class-id:s method-id:s
20 41 channel.close-ok s -
40 10 exchange.declare s declare-ok reserved-1:s exchange:S type:S passive:b durable:b reserved-2:b reserved-3:b \
no-wait:b arguments:T
40 11 exchange.declare-ok s -
40 20 exchange.delete s delete-ok reserved-1:s exchange:S if-unused:b no-wait:b
40 21 exchange.delete-ok s -
50 10 queue.declare s declare-ok reserved-1:s queue:S passive:b durable:b exclusive:b auto-delete:b \
no-wait:b arguments:T
50 11 queue.declare-ok s - queue:S message-count:l consumer-count:l
50 20 queue.bind s bind-ok reserved-1:s queue:S exchange:S routing-key:S no-wait:b arguments:T
50 21 queue.bind-ok s -
50 30 queue.purge s purge-ok reserved-1:s queue:S no-wait:b
50 31 queue.purge-ok s - message-count:l
50 40 queue.delete s delete-ok reserved-1:s queue:S if-unused:b if-empty:b no-wait:b
50 41 queue.delete-ok s - message-count:l
50 50 queue.unbind s unbind-ok reserved-1:s queue:S exchange:S routing-key:S arguments:T
50 51 queue.unbind-ok s -
60 10 basic.qos s qos-ok prefetch-size:l prefetch-count:s global:b
60 11 basic.qos-ok s -
60 20 basic.consume s consume-ok reserved-1:s queue:S consumer-tag:S no-local:b no-ack:b exclusive:b \
no-wait:b arguments:T
60 21 basic.consume-ok s - consumer-tag:S
60 30 basic.cancel s cancel-ok consumer-tag:S no-wait:b
60 31 basic.cancel-ok s - consumer-tag:S
60 40 basic.publish c - reserved-1:s exchange:S routing-key:S mandatory:b immediate:b
60 50 basic.return c - reply-code:s reply-text:S exchange:S routing-key:S
60 60 basic.deliver c - consumer-tag:S delivery-tag:q redelivered:b exchange:S routing-key:S
60 70 basic.get s get-ok,get-empty reserved-1:s queue:S no-ack:b
60 71 basic.get-ok sc - delivery-tag:q redelivered:b exchange:S routing-key:S message-count:l
60 72 basic.get-empty s - reserved-1:S
60 80 basic.ack - - delivery-tag:q multiple:b
60 90 basic.reject - - delivery-tag:q requeue:b
60 100 basic.recover-async - - requeue:b
60 110 basic.recover - - requeue:b
60 111 basic.recover-ok s -
90 10 tx.select s select-ok
90 11 tx.select-ok s -
90 20 tx.commit s commit-ok
90 21 tx.commit-ok s -
90 30 tx.rollback s rollback-ok
90 31 tx.rollback-ok s -
"""

EXTENSIONS = """
10 70 connection.update-secret s update-secret-ok new-secret:L reason:S
10 71 connection.update-secret-ok s -
30 10 access.request s request-ok realm:S exclusive:b passive:b active:b write:b read:b
30 11 access.request-ok s - ticket:s
40 30 exchange.bind s bind-ok ticket:s destination:S source:S routing-key:S nowait:b arguments:T
40 31 exchange.bind-ok s -
40 40 exchange.unbind s unbind-ok ticket:s destination:S source:S routing-key:S nowait:b arguments:T
40 51 exchange.unbind-ok s -
60 120 basic.nack - - delivery-tag:q multiple:b requeue:b
85 10 confirm.select s select-ok nowait:b
85 11 confirm.select-ok s -
"""

REPLIES_ADDED = {"basic.recover": ("basic.recover-ok",)}
"""The specification has basic.recover-ok but does not say what it answers; RabbitMQ sends it after basic.recover."""

RESERVED = {
    "connection.open": {"reserved-1": "capabilities", "reserved-2": "insist"},
    "connection.open-ok": {"reserved-1": "known_hosts"},
    "channel.open": {"reserved-1": "out_of_band"},
    "channel.open-ok": {"reserved-1": "channel_id"},
    "exchange.declare": {"reserved-1": "ticket", "reserved-2": "auto_delete", "reserved-3": "internal"},
    "basic.get-empty": {"reserved-1": "cluster_id"},
}
"""RabbitMQ's names for arguments that the specification only reserves; reserved-1 of any other method is `ticket`."""

RENAMED = {"no-wait": "nowait", "global": "global_", "class-id": "class_id_", "method-id": "method_id_"}
"""Ours where the specification's name is RabbitMQ's otherwise, a keyword, or every method's own attribute."""

PROPERTIES = (
    "content-type:S content-encoding:S headers:T delivery-mode:o priority:o correlation-id:S reply-to:S expiration:S "
    "message-id:S timestamp:t type:S user-id:S app-id:S cluster-id:S"
)
"""In the order of their flags; the last is only reserved in the specification."""

CONSTANTS = {
    "frame-method": 1,
    "frame-header": 2,
    "frame-body": 3,
    "frame-heartbeat": 8,
    "frame-min-size": 4096,
    "frame-end": 206,
}

REPLY_CODES = {
    "success": 200,  # reply-success
    "content-too-large": 311,
    "no-consumers": 313,
    "connection-forced": 320,
    "invalid-path": 402,
    "access-refused": 403,
    "not-found": 404,
    "resource-locked": 405,
    "precondition-failed": 406,
    "frame-error": 501,
    "syntax-error": 502,
    "command-invalid": 503,
    "channel-error": 504,
    "unexpected-frame": 505,
    "resource-error": 506,
    "not-allowed": 530,
    "not-implemented": 540,
    "internal-error": 541,
}


class MethodFact(NamedTuple):
    """One line of the lists above."""

    class_id: int
    method_id: int
    name: str
    synchronous: bool
    has_content: bool
    replies: tuple[str, ...]
    arguments: tuple[tuple[str, str], ...]
    """Name and type, in wire order."""


def facts(lines: str) -> list[MethodFact]:
    return [_fact(line) for line in lines.split("\n") if line]


def _fact(line: str) -> MethodFact:
    class_id, method_id, name, marks, replies, *arguments = line.split()
    return MethodFact(
        int(class_id),
        int(method_id),
        name,
        "s" in marks,
        "c" in marks,
        tuple(f"{name.split('.')[0]}.{reply}" for reply in replies.split(",") if reply != "-"),
        tuple(_argument(argument) for argument in arguments),
    )


def _argument(text: str) -> tuple[str, str]:
    name, letter = text.split(":")
    return name, TYPES[letter]
