"""The methods of class connection (10): handshake, close, and RabbitMQ's blocked, unblocked and update-secret.

Arguments have the specification's names with underscores; those that it reserves have the names of the older versions
that still used them, as in RabbitMQ. Long strings are bytes here: they carry SASL data. A close names its culprit in
`class_id_` and `method_id_`, since every method has a class_id and a method_id of its own.
"""

from __future__ import annotations

from dataclasses import field

from rabbitish.wire.codec import Bit, Long, LongStr, Octet, Short, ShortStr, TableField
from rabbitish.wire.method import Method, method


@method(10, 10, replies=("connection.start-ok",))
class ConnectionStart(Method):
    """Server: the versions, the properties and the mechanisms (space separated) it offers."""

    version_major: Octet = 0
    version_minor: Octet = 9
    server_properties: TableField = field(default_factory=dict)
    mechanisms: LongStr = b"PLAIN"
    locales: LongStr = b"en_US"


@method(10, 11)
class ConnectionStartOk(Method):
    """Client: its properties, the mechanism it chose and that mechanism's first response."""

    client_properties: TableField = field(default_factory=dict)
    mechanism: ShortStr = "PLAIN"
    response: LongStr = b""
    locale: ShortStr = "en_US"


@method(10, 20, replies=("connection.secure-ok",))
class ConnectionSecure(Method):
    """Server: one more challenge of the mechanism."""

    challenge: LongStr = b""


@method(10, 21)
class ConnectionSecureOk(Method):
    """Client: the response to a challenge."""

    response: LongStr = b""


@method(10, 30, replies=("connection.tune-ok",))
class ConnectionTune(Method):
    """Server: its limits. 0 is "no limit", for heartbeat (seconds) "none"."""

    channel_max: Short = 0
    frame_max: Long = 0
    heartbeat: Short = 0


@method(10, 31)
class ConnectionTuneOk(Method):
    """Client: the limits that hold from now on."""

    channel_max: Short = 0
    frame_max: Long = 0
    heartbeat: Short = 0


@method(10, 40, replies=("connection.open-ok",))
class ConnectionOpen(Method):
    """Client: the virtual host to work in. The other two arguments mean nothing any more."""

    virtual_host: ShortStr = "/"
    capabilities: ShortStr = ""
    insist: Bit = False


@method(10, 41)
class ConnectionOpenOk(Method):
    """Server: the connection is ready."""

    known_hosts: ShortStr = ""


@method(10, 50, replies=("connection.close-ok",))
class ConnectionClose(Method):
    """Either side: the end, and which method was to blame (0, 0 if none was)."""

    reply_code: Short = 0
    reply_text: ShortStr = ""
    class_id_: Short = 0
    method_id_: Short = 0


@method(10, 51)
class ConnectionCloseOk(Method):
    """The other side has seen the close."""


@method(10, 60)
class ConnectionBlocked(Method):
    """RabbitMQ's: the server reads no more from this publishing connection for now."""

    reason: ShortStr = ""


@method(10, 61)
class ConnectionUnblocked(Method):
    """RabbitMQ's: it reads again."""


@method(10, 70, replies=("connection.update-secret-ok",))
class ConnectionUpdateSecret(Method):
    """RabbitMQ's: a fresh token in place of the one that is about to expire."""

    new_secret: LongStr = b""
    reason: ShortStr = ""


@method(10, 71)
class ConnectionUpdateSecretOk(Method):
    """The new secret is taken."""
