"""Checks of the arguments of queue.declare, exchange.declare and basic.consume, and what they mean.

Turns a field table into options with units in their names, or refuses it with 406 in RabbitMQ's words (clients match
on them). The checks are a table in RabbitMQ's order (rabbit_amqqueue: declare_args, consume_args), since of several
faults only the first is told. Never looks at what exists: permissions, names and equivalence are checked elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite

from rabbitish.errors import ChannelError, ReplyCode
from rabbitish.values import Table, Timestamp, Value, type_name

EXPIRY_MS_MAX = 315_360_000_000  # ten years; RabbitMQ: rabbit_misc:check_expiry
PRIORITY_MAX = 255
ROUTING_KEY_BYTES_MAX = 255  # a short string; RabbitMQ takes a longer one here, and fails when it delivers
OVERFLOW_MODES = ("drop-head", "reject-publish", "reject-publish-dlx")
QUEUE_TYPES = ("classic", "quorum", "stream")
DEAD_LETTER_STRATEGIES = ("at-most-once", "at-least-once")
LEADER_LOCATORS = ("client-local", "balanced", "random", "least-leaders")

# Arguments of other queue types, which RabbitMQ refuses (capabilities of rabbit_classic_queue, rabbit_quorum_queue).
# Though RabbitMQ refuses it on a classic queue, x-delivery-limit is not among them: it works on every queue here.
_STREAMS_ALONE = frozenset(("x-initial-cluster-size", "x-max-age", "x-stream-max-segment-size-bytes"))
_NOT_FOR = {
    "classic": _STREAMS_ALONE
    | {"x-dead-letter-strategy", "x-max-in-memory-bytes", "x-max-in-memory-length"}
    | {"x-queue-leader-locator", "x-quorum-initial-group-size"},
    "quorum": _STREAMS_ALONE | {"x-max-priority", "x-queue-master-locator", "x-queue-mode", "x-queue-version"},
    "stream": frozenset[str](),
}
_CONSUMER_NOT_FOR = {
    "classic": frozenset(("x-stream-offset",)),
    "quorum": frozenset(("x-stream-offset", "x-cancel-on-ha-failover")),
}


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """What a queue was declared with, beside its flags. None is "not given"; times in milliseconds."""

    message_ttl_ms: int | None = None
    expires_ms: int | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    overflow: str | None = None
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    max_priority: int | None = None
    single_active_consumer: bool = False
    delivery_limit: int | None = None
    consumer_timeout_ms: int | None = None
    queue_type: str = "classic"
    dead_letter_strategy: str | None = None

    @property
    def quorum(self) -> bool:
        """Whether it is a quorum queue: all that comes into it must survive."""
        return self.queue_type == "quorum"

    @property
    def patient(self) -> bool:
        """Whether dead letters that no queue takes wait: RabbitMQ's at-least-once, which asks for reject-publish."""
        return (
            self.dead_letter_strategy == "at-least-once"
            and self.quorum
            and self.overflow == "reject-publish"
            and self.dead_letter_exchange is not None
        )

    @property
    def counted(self) -> bool:
        """Whether consumers are told how often a message came back."""
        return self.delivery_limit is not None or self.quorum

    @property
    def drops_head(self) -> bool:
        """Whether what is too much goes from the head, rather than not being let in.

        A quorum queue takes reject-publish-dlx for drop-head, as RabbitMQ's does.
        """
        refusing = ("reject-publish",) if self.quorum else OVERFLOW_MODES[1:]
        return self.overflow not in refusing


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """What a consumer was started with, beside its flags."""

    priority: int = 0
    cancel_on_ha_failover: bool = False
    consumer_timeout_ms: int | None = None


def resource(kind: str, name: str, vhost: str) -> str:
    """How RabbitMQ's texts name a thing: "queue 'q' in vhost '/'"."""
    return f"{kind} '{name}' in vhost '{vhost}'"


def refuse(detail: str) -> ChannelError:
    """The 406 with this text."""
    return ChannelError(ReplyCode.PRECONDITION_FAILED, detail)


def erlang_term(value: Value) -> str:
    """A value as Erlang's ~p writes it, which is how RabbitMQ's texts show values: <<"a">>, true, [{long,1}]."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "undefined"
    if isinstance(value, str):
        return _erlang_binary(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, bytes):
        return _erlang_binary(value)
    if isinstance(value, float):
        return _erlang_float(value)
    if isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        unscaled = int("".join(map(str, digits))) * (-1 if sign else 1)
        return f"{{{-int(exponent)},{unscaled}}}"
    if isinstance(value, list):
        return "[" + ",".join(f"{{{type_name(item)},{erlang_term(item)}}}" for item in value) + "]"
    if isinstance(value, dict):
        rows = (f"{{{erlang_term(key)},{type_name(item)},{erlang_term(item)}}}" for key, item in value.items())
        return "[" + ",".join(rows) + "]"
    return str(int(value))


def erlang_string(text: str) -> str:
    """A text as Erlang's ~p writes a string: in quotes when all of it can be printed, else as a list of its bytes."""
    raw = text.encode("utf-8", "surrogateescape")
    return _quoted(raw) or "[" + ",".join(map(str, raw)) + "]"


def _erlang_binary(raw: bytes) -> str:
    shown = _quoted(raw) if raw else ""
    return f"<<{shown if shown is not None else ','.join(map(str, raw))}>>"


def _quoted(raw: bytes) -> str | None:
    """The bytes in quotes, or None when some are neither printable in ISO 8859-1 nor have an escape."""
    if all(32 <= byte < 127 or byte >= 160 or byte in _ESCAPES for byte in raw):
        text = b"".join(_ESCAPES.get(byte) or bytes((byte,)) for byte in raw)
        return f'"{text.decode("utf-8", "surrogateescape")}"'
    return None


_ESCAPES = {byte: b"\\" + mark.encode() for byte, mark in zip(b'\b\t\n\v\f\r\x1b"\\', 'btnvfre"\\', strict=True)}


def _erlang_float(value: float) -> str:
    """The fewest digits that mean this number, in the shorter of both notations."""
    plain = repr(value)
    if not isfinite(value):
        return plain
    digits = plain.partition("e")[0].replace(".", "").strip("-0")
    mantissa, _, exponent = f"{value:.{max(len(digits) - 1, 1)}e}".partition("e")
    scientific = f"{mantissa}e{int(exponent)}"
    return scientific if "e" in plain or len(scientific) < len(plain) else plain


# One check says what is wrong with a value, as RabbitMQ writes the error term, or None.
_Check = Callable[[Value, Table], "str | None"]


def _integer(value: Value, _arguments: Table) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool | Timestamp):
        return None
    return f'"expected integer, got {type_name(value)}"'


def _non_negative(value: Value, arguments: Table) -> str | None:
    fault = _integer(value, arguments)
    if fault is None and isinstance(value, int) and value < 0:
        return f"{{value_negative,{int(value)}}}"
    return fault


def _expiry(value: Value, arguments: Table) -> str | None:
    fault = _non_negative(value, arguments)
    if fault is None and isinstance(value, int) and value > EXPIRY_MS_MAX:
        return f"{{value_too_large,{int(value)}}}"
    return fault


def _positive_expiry(value: Value, arguments: Table) -> str | None:
    fault = _expiry(value, arguments)
    if fault is None and value == 0:
        return "{value_zero,0}"
    return fault


def _priority_limit(value: Value, arguments: Table) -> str | None:
    fault = _non_negative(value, arguments)
    if fault is None and isinstance(value, int) and value > PRIORITY_MAX:
        return f"{{max_value_exceeded,{int(value)}}}"
    return fault


def _text(value: Value, _arguments: Table) -> str | None:
    return None if isinstance(value, str) else f"{{unacceptable_type,{type_name(value)}}}"


def _flag(value: Value, _arguments: Table) -> str | None:
    return None if isinstance(value, bool) else f"{{unacceptable_type,{type_name(value)}}}"


def _dead_letter_key(value: Value, arguments: Table) -> str | None:
    fault = _text(value, arguments)
    if fault is None and "x-dead-letter-exchange" not in arguments:
        return "routing_key_but_no_dlx_defined"
    if isinstance(value, str) and len(raw := value.encode("utf-8", "surrogateescape")) > ROUTING_KEY_BYTES_MAX:
        return f"{{value_too_long,{len(raw)}}}"
    return fault


def _overflow(value: Value, arguments: Table) -> str | None:
    return _text(value, arguments) or (None if value in OVERFLOW_MODES else "invalid_overflow")


def _strategy(value: Value, arguments: Table) -> str | None:
    return _text(value, arguments) or (None if value in DEAD_LETTER_STRATEGIES else "invalid_dlx_strategy")


def _leader_locator(value: Value, arguments: Table) -> str | None:
    return _text(value, arguments) or (None if value in LEADER_LOCATORS else "invalid_queue_locator_arg")


def _positive(value: Value, arguments: Table) -> str | None:
    fault = _non_negative(value, arguments)
    return "{value_zero,0}" if fault is None and value == 0 else fault


def _queue_version(value: Value, arguments: Table) -> str | None:
    fault = _non_negative(value, arguments)
    return fault or (None if value in (1, 2) else erlang_string(f"unsupported queue version '{value!s}'"))


def _one_of(what: str, *choices: str) -> _Check:
    def check(value: Value, arguments: Table) -> str | None:
        fault = _text(value, arguments)
        return fault or (None if value in choices else erlang_string(f"unsupported queue {what} '{value!s}'"))

    return check


_QUEUE_CHECKS: tuple[tuple[str, _Check], ...] = (
    ("x-queue-type", _one_of("type", *QUEUE_TYPES)),
    ("x-expires", _positive_expiry),
    ("x-message-ttl", _expiry),
    ("x-dead-letter-exchange", _text),
    ("x-dead-letter-routing-key", _dead_letter_key),
    ("x-dead-letter-strategy", _strategy),
    ("x-max-length", _non_negative),
    ("x-max-length-bytes", _non_negative),
    ("x-max-in-memory-length", _non_negative),
    ("x-max-in-memory-bytes", _non_negative),
    ("x-max-priority", _priority_limit),
    ("x-overflow", _overflow),
    ("x-queue-mode", _one_of("mode", "default", "lazy")),
    ("x-queue-version", _queue_version),
    ("x-single-active-consumer", _flag),
    ("x-quorum-initial-group-size", _positive),
    ("x-queue-leader-locator", _leader_locator),
    ("x-consumer-timeout", _non_negative),
    ("x-delivery-limit", _non_negative),
)

_CONSUMER_CHECKS: tuple[tuple[str, _Check], ...] = (
    ("x-priority", _integer),
    ("x-cancel-on-ha-failover", _flag),
    ("x-consumer-timeout", _non_negative),
)


_PLAIN_QUEUE = QueueOptions()


def queue_options(
    name: str, vhost: str, arguments: Table, *, durable: bool, exclusive: bool, auto_delete: bool
) -> QueueOptions:
    """What the arguments of a queue.declare that makes a new queue mean; ChannelError 406 for what is wrong in them."""
    if not arguments:
        return _PLAIN_QUEUE
    where = resource("queue", name, vhost)
    exchange = dead_letter_exchange(name, vhost, arguments)
    _run(_QUEUE_CHECKS[:1], where, arguments)
    kind = _str(arguments, "x-queue-type") or "classic"
    _run(_QUEUE_CHECKS[1:], where, arguments, _NOT_FOR[kind])
    _refuse_keys(where, arguments, kind, _NOT_FOR[kind])
    _refuse_type(where, kind, durable=durable, exclusive=exclusive, auto_delete=auto_delete)
    return QueueOptions(
        message_ttl_ms=_int(arguments, "x-message-ttl"),
        expires_ms=_int(arguments, "x-expires"),
        max_length=_int(arguments, "x-max-length"),
        max_length_bytes=_int(arguments, "x-max-length-bytes"),
        overflow=_str(arguments, "x-overflow"),
        dead_letter_exchange=exchange,
        dead_letter_routing_key=_str(arguments, "x-dead-letter-routing-key"),
        max_priority=_int(arguments, "x-max-priority"),
        single_active_consumer=arguments.get("x-single-active-consumer") is True,
        delivery_limit=_int(arguments, "x-delivery-limit"),
        consumer_timeout_ms=_int(arguments, "x-consumer-timeout"),
        queue_type=kind,
        dead_letter_strategy=_str(arguments, "x-dead-letter-strategy"),
    )


def dead_letter_exchange(name: str, vhost: str, arguments: Table) -> str | None:
    """The dead letter exchange that a queue's arguments name, if any; ChannelError 406: it is no name."""
    exchange = arguments.get("x-dead-letter-exchange")
    if "x-dead-letter-exchange" in arguments and not isinstance(exchange, str):
        where = resource("queue", name, vhost)
        raise refuse(f"invalid type '{type_name(exchange)}' for arg 'x-dead-letter-exchange' in {where}")
    return _str(arguments, "x-dead-letter-exchange")


def check_server_named(arguments: Table) -> None:
    """ChannelError 406 for a queue of a type that must be named by its user."""
    wanted = arguments.get("x-queue-type", "classic")
    if wanted in ("quorum", "stream"):
        raise refuse(f"Cannot declare a server-named queue for type rabbit_{wanted}_queue")


def consumer_options(name: str, vhost: str, arguments: Table, queue_type: str = "classic") -> ConsumerOptions:
    """What the arguments of a basic.consume on this queue mean; ChannelError 406 for what is wrong in them."""
    where = resource("queue", name, vhost)
    _run(_CONSUMER_CHECKS, where, arguments, _CONSUMER_NOT_FOR[queue_type])
    _refuse_keys(where, arguments, queue_type, _CONSUMER_NOT_FOR[queue_type])
    return ConsumerOptions(
        priority=_int(arguments, "x-priority") or 0,
        cancel_on_ha_failover=arguments.get("x-cancel-on-ha-failover") is True,
        consumer_timeout_ms=_int(arguments, "x-consumer-timeout"),
    )


def alternate_exchange(name: str, vhost: str, arguments: Table) -> str | None:
    """The alternate that the arguments of an exchange.declare name; ChannelError 406 when it is not a string."""
    alternate = arguments.get("alternate-exchange")
    if "alternate-exchange" in arguments and not isinstance(alternate, str):
        where = resource("exchange", name, vhost)
        raise refuse(f"invalid type '{type_name(alternate)}' for arg 'alternate-exchange' in {where}")
    return _str(arguments, "alternate-exchange")


def check_exchange_type(type_: str, known: Collection[str]) -> None:
    """ChannelError 406 for a type nobody knows (RabbitMQ before 3.13: 503, which cost the whole connection)."""
    if type_ not in known:
        raise refuse(f"unknown exchange type '{type_}'")


def _run(
    checks: tuple[tuple[str, _Check], ...], where: str, arguments: Table, but: Collection[str] = frozenset()
) -> None:
    for key, check in checks:
        if key in arguments and key not in but:
            fault = check(arguments[key], arguments)
            if fault is not None:
                raise refuse(f"invalid arg '{key}' for {where}: {fault}")


def _refuse_keys(where: str, arguments: Table, queue_type: str, unknown: Collection[str]) -> None:
    for key in arguments:
        if key in unknown:
            raise refuse(f"invalid arg '{key}' for {where} of queue type rabbit_{queue_type}_queue")


def _refuse_type(where: str, queue_type: str, *, durable: bool, exclusive: bool, auto_delete: bool) -> None:
    """Refuse what a queue of this type cannot be, and the type that there is not, by RabbitMQ's reasons first."""
    if queue_type == "classic":
        return
    for unfit, wording in ((auto_delete, "auto-delete"), (exclusive, "exclusive-owner"), (not durable, "non-durable")):
        if unfit:
            raise refuse(f"invalid property '{wording}' for {where}")
    if queue_type != "quorum":
        raise refuse(
            f"invalid arg 'x-queue-type' for {where}: \"queue type '{queue_type}' is not available on this node\""
        )


def _int(arguments: Table, key: str) -> int | None:
    value = arguments.get(key)
    return int(value) if isinstance(value, int) else None


def _str(arguments: Table, key: str) -> str | None:
    value = arguments.get(key)
    return value if isinstance(value, str) else None
