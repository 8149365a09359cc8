"""What a run is asked to do: one frozen dataclass with PerfTest's names, checked when it is made.

Whatever cannot work is an `OptionError` here, with the words for whoever typed it, so that nothing later in the
package has to doubt what it was given. Texts with several values in them (URI, key=value lists) are parsed here too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from urllib.parse import unquote, urlsplit

from rabbitish.values import Table, Value
from rabbitish.wire.codec import encode_shortstr
from rabbitish.wire.properties import Properties
from rabbitish.wire.table import encode_table

STAMPED_BYTES = 12
"""The smallest body that has room for the time it was sent at."""

_DEFAULT_PORT = 5672
_MOST_PREFETCH = 65_535
_MOST_PRIORITY = 255
_LARGEST_BODY = 1024 * 1024 * 1024  # several copies of it are made
_LARGEST_PROPERTIES = 4000  # what certainly fits into the smallest frame_max, with some to spare


class OptionError(ValueError):
    """An option cannot be used, or not together with another."""


@dataclass(frozen=True)
class Login:
    """Where a broker is and who to be there."""

    host: str = "localhost"
    port: int = _DEFAULT_PORT
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"

    @property
    def address(self) -> str:
        """Host and port, as messages name them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_uri(text: str) -> Login:
    """The login in amqp://user:password@host:port/vhost, of which everything behind the slashes may be missing.

    OptionError: it is not such a URI. An empty virtual host is taken for "/", as Python's clients do.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise OptionError(f"{text!r} is no URI: {error}") from None
    if parts.scheme == "amqps":
        raise OptionError("amqps is not supported: there is no TLS yet")
    if parts.scheme != "amqp" or (not parts.netloc and parts.path):
        raise OptionError(f"{text!r} is not like amqp://user:password@host:port/vhost")
    login = Login()
    return Login(
        host=parts.hostname or login.host,
        port=login.port if port is None else port,
        user=login.user if parts.username is None else unquote(parts.username),
        password=login.password if parts.password is None else unquote(parts.password),
        vhost=unquote(parts.path[1:]) or login.vhost,
    )


def parse_pairs(text: str) -> Table:
    """key=value,key=value as a table; whole numbers, true and false become such. OptionError: it is not like that."""
    table: Table = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise OptionError(f"{text!r} is not like key=value,key=value")
        table[key.strip()] = _value(value.strip())
    return table


def _value(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        return text


_PROPERTIES = {item.name.replace("_", ""): item.name for item in fields(Properties) if item.name != "headers"}
_NUMBERS = ("delivery_mode", "priority", "timestamp")


def parse_properties(text: str) -> Properties:
    """Content properties from key=value,key=value; what is none of AMQP's properties is a header.

    contentType, content_type and content-type are the same. OptionError: a property with a value that it cannot have.
    """
    properties = Properties()
    headers: Table = {}
    for key, value in parse_pairs(text).items():
        name = _PROPERTIES.get(key.replace("_", "").replace("-", "").lower())
        if name is None:
            headers[key] = value
        elif name not in _NUMBERS:
            setattr(properties, name, str(value))
        elif type(value) is int:
            setattr(properties, name, value)
        else:
            raise OptionError(f"{key} must be a number, not {value!r}")
    properties.headers = headers or None
    try:
        properties.encode()
    except ValueError as error:
        raise OptionError(f"message properties: {error}") from None
    return properties


@dataclass(frozen=True)
class Options:
    """A run. Counts and rates are of each producer or consumer; 0 is "no limit", and "none" for confirms."""

    login: Login = Login()
    producers: int = 1
    consumers: int = 1
    size: int = STAMPED_BYTES
    """Bytes of a body; below STAMPED_BYTES no latency is measured."""
    rate: float = 0
    confirm: int = 0
    """Most unconfirmed publishes of a producer."""
    autoack: bool = False
    multi_ack_every: int = 0
    """0: each delivery is acknowledged by itself."""
    qos: int = 0
    """Prefetch count of a consumer."""
    global_qos: int = 0
    """Prefetch count of a channel."""
    persistent: bool = False
    mandatory: bool = False
    queue: str = ""
    """Empty: each consumer has a queue of its own, named by the server."""
    queue_pattern: str = ""
    """Like perf-%d: queues in sequence, instead of `queue`."""
    queue_pattern_from: int = 1
    queue_pattern_to: int = 0
    exchange: str | None = None
    """None: the type's name. Empty: the default exchange."""
    exchange_type: str = "direct"
    routing_key: str | None = None
    """None: the queue's name, or one made up where queues have none."""
    predeclared: bool = False
    durable: bool | None = None
    """None: as durable as the messages."""
    auto_delete: bool = True
    queue_args: Table = field(default_factory=dict)
    properties: Properties = field(default_factory=Properties)
    priority: int = 0
    """x-max-priority of the queues, and messages with all the priorities up to it, in turn."""
    pmessages: int = 0
    cmessages: int = 0
    time: float = 0
    """Seconds to run; with `drain`, to publish."""
    drain: bool = False
    use_millis: bool = False
    """Messages carry wall milliseconds instead of this machine's monotonic nanoseconds."""
    interval: float = 1.0
    """Seconds between two lines of progress."""

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_queues()
        self._check_wire()
        if not self.producers and not self.consumers:
            raise OptionError("neither producers nor consumers: there is nothing to do")
        if self.autoack and self.multi_ack_every:
            raise OptionError("--autoack acknowledges nothing, --multi-ack-every does; give one of them")
        for name in ("qos", "global_qos"):
            prefetch = getattr(self, name)
            if 0 < prefetch < self.multi_ack_every:
                shown = name.replace("_", "-")
                raise OptionError(f"--multi-ack-every must not be over --{shown}, or no delivery is ever acknowledged")
        if self.drain and not (self.producers and self.consumers):
            raise OptionError("--drain needs producers and consumers")
        if self.drain and not (self.pmessages or self.time):
            raise OptionError("--drain needs a number of messages (-C) or a time to publish for (-z)")
        if self.priority and (self.properties.priority is not None or "x-max-priority" in self.queue_args):
            raise OptionError("--priority already says the queue's priorities and the messages'")

    def _check_numbers(self) -> None:
        for name in ("producers", "consumers", "size", "rate", "confirm", "multi_ack_every", "pmessages", "cmessages"):
            if getattr(self, name) < 0:
                raise OptionError(f"{name.replace('_', '-')} must not be negative")
        for name in ("qos", "global_qos"):
            if not 0 <= getattr(self, name) <= _MOST_PREFETCH:
                raise OptionError(f"{name.replace('_', '-')} must be from 0 to {_MOST_PREFETCH}")
        if not 0 <= self.priority <= _MOST_PRIORITY:
            raise OptionError(f"priority must be from 0 to {_MOST_PRIORITY}")
        if self.time < 0 or self.interval <= 0:
            raise OptionError("times must be positive")

    def _check_wire(self) -> None:
        """What must be small enough to be sent."""
        if self.size > _LARGEST_BODY:
            raise OptionError(f"a body may have {_LARGEST_BODY} bytes at most")
        last = self.queue_pattern % self.queue_pattern_to if self.queue_pattern else self.queue
        names = (last, self.exchange or "", self.exchange_type, self.routing_key or "", self.login.vhost)
        try:
            for name in names:
                encode_shortstr(name)
            encode_table(self.queue_args)
            properties = self.properties.encode()
        except ValueError as error:
            raise OptionError(str(error)) from None
        if len(properties) > _LARGEST_PROPERTIES:
            raise OptionError(f"message properties of {len(properties)} bytes; {_LARGEST_PROPERTIES} are the most")

    def _check_queues(self) -> None:
        named = bool(self.queue or self.queue_pattern)
        if self.queue and self.queue_pattern:
            raise OptionError("--queue and --queue-pattern both name queues; give one of them")
        if self.queue_pattern:
            try:
                distinct = self.queue_pattern % 1 != self.queue_pattern % 2
            except (TypeError, ValueError):
                distinct = False
            if not distinct:
                raise OptionError(f"a queue pattern is like 'perf-test-%d', not {self.queue_pattern!r}")
            if not 0 <= self.queue_pattern_from <= self.queue_pattern_to:
                raise OptionError("--queue-pattern needs --queue-pattern-from and --queue-pattern-to, in this order")
        if self.predeclared and self.consumers and not named:
            raise OptionError("--predeclared needs the name of the queue to consume from (-u)")

    @property
    def queue_is_durable(self) -> bool:
        """Whether queues are declared durable."""
        return self.persistent if self.durable is None else self.durable
