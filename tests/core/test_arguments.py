"""Checks of declare and consume arguments; the texts are those of RabbitMQ 3.10.8, taken from its answers."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitish.core.arguments import (
    ConsumerOptions,
    QueueOptions,
    alternate_exchange,
    check_exchange_type,
    check_server_named,
    consumer_options,
    erlang_string,
    erlang_term,
    queue_options,
)
from rabbitish.errors import ChannelError, ReplyCode
from rabbitish.values import Float32, Int8, Int16, Int64, Table, Timestamp, UInt8, UInt16, UInt32, Value


def options(
    arguments: Table, *, durable: bool = True, exclusive: bool = False, auto_delete: bool = False
) -> QueueOptions:
    return queue_options("q", "/", arguments, durable=durable, exclusive=exclusive, auto_delete=auto_delete)


def refusal(arguments: Table, *, durable: bool = True, exclusive: bool = False, auto_delete: bool = False) -> str:
    with pytest.raises(ChannelError) as refused:
        options(arguments, durable=durable, exclusive=exclusive, auto_delete=auto_delete)
    assert refused.value.code is ReplyCode.PRECONDITION_FAILED
    return refused.value.detail


def invalid(key: str, fault: str) -> str:
    return f"invalid arg '{key}' for queue 'q' in vhost '/': {fault}"


# ---- what is accepted


def test_without_arguments_everything_is_at_its_default() -> None:
    assert options({}) == QueueOptions(
        message_ttl_ms=None,
        expires_ms=None,
        max_length=None,
        max_length_bytes=None,
        overflow=None,
        dead_letter_exchange=None,
        dead_letter_routing_key=None,
        max_priority=None,
        single_active_consumer=False,
        delivery_limit=None,
        consumer_timeout_ms=None,
        queue_type="classic",
    )


def test_every_argument_arrives() -> None:
    assert options(
        {
            "x-message-ttl": 0,
            "x-expires": 1,
            "x-max-length": 2,
            "x-max-length-bytes": 3,
            "x-overflow": "reject-publish",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "k",
            "x-max-priority": 4,
            "x-single-active-consumer": True,
            "x-delivery-limit": 5,
            "x-consumer-timeout": 6,
            "x-queue-type": "classic",
        }
    ) == QueueOptions(
        message_ttl_ms=0,
        expires_ms=1,
        max_length=2,
        max_length_bytes=3,
        overflow="reject-publish",
        dead_letter_exchange="",
        dead_letter_routing_key="k",
        max_priority=4,
        single_active_consumer=True,
        delivery_limit=5,
        consumer_timeout_ms=6,
        queue_type="classic",
    )


def test_options_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        options({}).max_length = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    "arguments",
    [
        {"x-queue-mode": "lazy", "x-queue-version": 2, "x-queue-master-locator": "min-masters"},
        {"x-queue-mode": "default", "x-queue-version": 1},
        {"x-queue-master-locator": 5},
        {"x-nonsense": [1, {"a": None}], "whatever": Decimal(5)},
        {"x-single-active-consumer": False},
    ],
)
def test_some_arguments_are_accepted_and_change_nothing(arguments: Table) -> None:
    assert options(arguments) == QueueOptions()


@pytest.mark.parametrize("kind", [int, Int8, UInt8, Int16, UInt16, UInt32, Int64])
def test_integers_of_every_width_become_plain_ones(kind: type[int]) -> None:
    length = options({"x-max-length": kind(7)}).max_length
    assert length == 7
    assert type(length) is int


@pytest.mark.parametrize("mode", ["drop-head", "reject-publish", "reject-publish-dlx"])
def test_overflow_modes(mode: str) -> None:
    assert options({"x-overflow": mode}).overflow == mode


def test_limits_are_inclusive() -> None:
    assert options({"x-message-ttl": 315_360_000_000}).message_ttl_ms == 315_360_000_000
    assert options({"x-expires": 315_360_000_000}).expires_ms == 315_360_000_000
    assert options({"x-max-priority": 255}).max_priority == 255
    assert options({"x-max-priority": 0}).max_priority == 0
    assert options({"x-max-length": 2**62}).max_length == 2**62


# ---- what is refused

INTEGERS = (
    "x-expires",
    "x-message-ttl",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-queue-version",
    "x-delivery-limit",
    "x-consumer-timeout",
)
TEXTS = ("x-dead-letter-routing-key", "x-overflow", "x-queue-mode", "x-queue-type")
TYPES: list[tuple[Value, str]] = [
    ("5", "longstr"),
    (True, "bool"),
    (None, "void"),
    (b"5", "binary"),
    ([5], "array"),
    ({"a": 5}, "table"),
    (Decimal(5), "decimal"),
    (Timestamp(5), "timestamp"),
    (5.0, "double"),
    (Float32(5), "float"),
    (5, "signedint"),
    (Int8(5), "byte"),
    (Int64(5), "long"),
    (UInt32(5), "unsignedint"),
]


@pytest.mark.parametrize("key", INTEGERS)
@pytest.mark.parametrize(("value", "name"), TYPES[:10])
def test_what_must_be_an_integer(key: str, value: Value, name: str) -> None:
    assert refusal({key: value}) == invalid(key, f'"expected integer, got {name}"')


@pytest.mark.parametrize("key", TEXTS)
@pytest.mark.parametrize(("value", "name"), TYPES[1:])
def test_what_must_be_a_text(key: str, value: Value, name: str) -> None:
    assert refusal({key: value}) == invalid(key, f"{{unacceptable_type,{name}}}")


@pytest.mark.parametrize(("value", "name"), [pair for pair in TYPES if pair[1] != "bool"])
def test_what_must_be_a_flag(value: Value, name: str) -> None:
    assert refusal({"x-single-active-consumer": value}) == invalid(
        "x-single-active-consumer", f"{{unacceptable_type,{name}}}"
    )


@pytest.mark.parametrize(("value", "name"), TYPES[1:])
def test_the_dead_letter_exchange_has_a_text_of_its_own(value: Value, name: str) -> None:
    expected = f"invalid type '{name}' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'"
    assert refusal({"x-dead-letter-exchange": value}) == expected


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        *[(key, -1, "{value_negative,-1}") for key in INTEGERS],
        ("x-max-length", Int8(-3), "{value_negative,-3}"),
        ("x-expires", 0, "{value_zero,0}"),
        ("x-expires", 315_360_000_001, "{value_too_large,315360000001}"),
        ("x-message-ttl", 315_360_000_001, "{value_too_large,315360000001}"),
        ("x-max-priority", 256, "{max_value_exceeded,256}"),
        ("x-overflow", "zzz", "invalid_overflow"),
        ("x-dead-letter-routing-key", "k", "routing_key_but_no_dlx_defined"),
        ("x-queue-mode", "zzz", "\"unsupported queue mode 'zzz'\""),
        ("x-queue-mode", "", "\"unsupported queue mode ''\""),
        ("x-queue-mode", 'z"z', '"unsupported queue mode \'z\\"z\'"'),
        ("x-queue-mode", "a\nb", "\"unsupported queue mode 'a\\nb'\""),
        ("x-queue-mode", "zü", "\"unsupported queue mode 'zü'\""),
        ("x-queue-version", 0, "\"unsupported queue version '0'\""),
        ("x-queue-version", UInt8(3), "\"unsupported queue version '3'\""),
        ("x-queue-type", "zzz", "\"unsupported queue type 'zzz'\""),
    ],
)
def test_values_out_of_range(key: str, value: Value, fault: str) -> None:
    assert refusal({key: value}) == invalid(key, fault)


@pytest.mark.parametrize(
    "key",
    [
        "x-dead-letter-strategy",
        "x-initial-cluster-size",
        "x-max-age",
        "x-max-in-memory-bytes",
        "x-max-in-memory-length",
        "x-queue-leader-locator",
        "x-quorum-initial-group-size",
        "x-stream-max-segment-size-bytes",
    ],
)
def test_arguments_of_other_queue_types(key: str) -> None:
    for value in ("zzz", 5, None):
        assert (
            refusal({key: value})
            == f"invalid arg '{key}' for queue 'q' in vhost '/' of queue type rabbit_classic_queue"
        )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            {"x-queue-type": "zzz", "x-dead-letter-exchange": 5},
            "invalid type 'signedint' for arg 'x-dead-letter-exchange'",
        ),
        ({"x-expires": -1, "x-queue-type": "zzz"}, "invalid arg 'x-queue-type'"),
        ({"x-message-ttl": -1, "x-expires": -1}, "invalid arg 'x-expires'"),
        ({"x-overflow": "zzz", "x-max-priority": -1, "x-max-length": -1}, "invalid arg 'x-max-length'"),
        ({"x-max-age": "1D", "x-single-active-consumer": 1}, "invalid arg 'x-single-active-consumer'"),
        ({"x-max-age": "1D", "x-max-in-memory-length": 1}, "invalid arg 'x-max-age'"),
        ({"x-max-in-memory-length": 1, "x-max-age": "1D"}, "invalid arg 'x-max-in-memory-length'"),
    ],
)
def test_of_several_faults_rabbitmqs_first_is_told(arguments: Table, told: str) -> None:
    assert refusal(arguments).startswith(told)


@pytest.mark.parametrize("kind", ["quorum", "stream"])
def test_what_queues_of_other_types_cannot_be(kind: str) -> None:
    wanted: Table = {"x-queue-type": kind}
    place = "queue 'q' in vhost '/'"
    assert (
        refusal(wanted, auto_delete=True, exclusive=True, durable=False)
        == f"invalid property 'auto-delete' for {place}"
    )
    assert refusal(wanted, exclusive=True, durable=False) == f"invalid property 'exclusive-owner' for {place}"
    assert refusal(wanted, durable=False) == f"invalid property 'non-durable' for {place}"
    if kind == "quorum":
        assert options(wanted).quorum
    else:
        assert refusal(wanted) == invalid("x-queue-type", "\"queue type 'stream' is not available on this node\"")


@pytest.mark.parametrize("key", ["x-max-priority", "x-queue-mode", "x-queue-version", "x-max-age"])
def test_what_quorum_queues_do_not_know(key: str) -> None:
    told = f"invalid arg '{key}' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue"
    assert refusal({"x-queue-type": "quorum", key: -1}, durable=False) == told


def test_what_quorum_queues_alone_know() -> None:
    taken: Table = {"x-queue-type": "quorum", "x-max-in-memory-length": 0, "x-quorum-initial-group-size": 3}
    taken |= {"x-queue-leader-locator": "balanced", "x-dead-letter-strategy": "at-least-once"}
    made = options(taken)
    assert (made.queue_type, made.dead_letter_strategy, made.counted) == ("quorum", "at-least-once", True)
    for key, value, fault in (
        ("x-quorum-initial-group-size", 0, "{value_zero,0}"),
        ("x-quorum-initial-group-size", -1, "{value_negative,-1}"),
        ("x-max-in-memory-bytes", "1", '"expected integer, got longstr"'),
        ("x-queue-leader-locator", "here", "invalid_queue_locator_arg"),
        ("x-dead-letter-strategy", "never", "invalid_dlx_strategy"),
        ("x-dead-letter-strategy", 1, "{unacceptable_type,signedint}"),
    ):
        assert refusal({"x-queue-type": "quorum", key: value}) == invalid(key, fault)


@pytest.mark.parametrize(
    ("kind", "overflow", "drops"),
    [
        ("classic", None, True),
        ("classic", "drop-head", True),
        ("classic", "reject-publish", False),
        ("classic", "reject-publish-dlx", False),
        ("quorum", None, True),
        ("quorum", "reject-publish", False),
        ("quorum", "reject-publish-dlx", True),
    ],
)
def test_what_becomes_of_too_much(kind: str, overflow: str | None, drops: bool) -> None:
    given: Table = {"x-queue-type": kind} | ({"x-overflow": overflow} if overflow else {})
    assert options(given).drops_head is drops


def test_which_queue_types_need_a_name() -> None:
    for allowed in ({}, {"x-queue-type": "classic"}, {"x-queue-type": "zzz"}, {"x-queue-type": ["quorum"]}):
        check_server_named(allowed)
    for kind in ("quorum", "stream"):
        with pytest.raises(ChannelError) as refused:
            check_server_named({"x-queue-type": kind})
        assert refused.value.text == (
            f"PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_{kind}_queue"
        )


values: st.SearchStrategy[Value] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, -1, 1, 255, 256, Timestamp(3), Int8(-1)]),
    st.floats(),
    st.text(st.characters(), max_size=5),
    st.binary(max_size=5),
    st.just([1]),
    st.just({"a": "b"}),
    st.sampled_from(["classic", "quorum", "lazy", "drop-head"]),
)
queue_keys = st.sampled_from(
    [*INTEGERS, *TEXTS, "x-dead-letter-exchange", "x-single-active-consumer", "x-max-age", "x"]
)


@given(st.dictionaries(queue_keys, values, max_size=4), st.booleans(), st.booleans(), st.booleans())
def test_any_table_is_accepted_or_refused(arguments: Table, durable: bool, exclusive: bool, auto_delete: bool) -> None:
    try:
        made = options(arguments, durable=durable, exclusive=exclusive, auto_delete=auto_delete)
    except ChannelError as refused:
        assert refused.detail.startswith("invalid ")
        assert any(f"'{key}'" in refused.detail for key in arguments) or "property" in refused.detail
    else:
        assert made.max_length is None or made.max_length >= 0
        assert made.expires_ms is None or made.expires_ms > 0
        assert made.max_priority is None or 0 <= made.max_priority <= 255


# ---- consumers, exchanges


def test_what_a_consumer_asks_for() -> None:
    assert consumer_options("q", "/", {}) == ConsumerOptions(0, False, None)
    asked: Table = {"x-priority": -5, "x-cancel-on-ha-failover": True, "x-consumer-timeout": 9, "x-nonsense": 1}
    assert consumer_options("q", "/", asked) == ConsumerOptions(-5, True, 9)
    assert type(consumer_options("q", "/", {"x-priority": Int64(2**40)}).priority) is int


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"x-priority": "5"}, invalid("x-priority", '"expected integer, got longstr"')),
        ({"x-priority": Timestamp(5)}, invalid("x-priority", '"expected integer, got timestamp"')),
        ({"x-cancel-on-ha-failover": 1}, invalid("x-cancel-on-ha-failover", "{unacceptable_type,signedint}")),
        ({"x-consumer-timeout": -1}, invalid("x-consumer-timeout", "{value_negative,-1}")),
        (
            {"x-stream-offset": "first"},
            "invalid arg 'x-stream-offset' for queue 'q' in vhost '/' of queue type rabbit_classic_queue",
        ),
        ({"x-stream-offset": 1, "x-priority": None}, invalid("x-priority", '"expected integer, got void"')),
    ],
)
def test_what_a_consumer_of_a_classic_queue_cannot_ask_for(arguments: Table, text: str) -> None:
    with pytest.raises(ChannelError) as refused:
        consumer_options("q", "/", arguments)
    assert refused.value.text == f"PRECONDITION_FAILED - {text}"


@pytest.mark.parametrize("key", ["x-cancel-on-ha-failover", "x-stream-offset"])
def test_what_a_consumer_of_a_quorum_queue_cannot_ask_for(key: str) -> None:
    with pytest.raises(ChannelError) as refused:
        consumer_options("q", "/", {"x-priority": 1, key: 1}, "quorum")
    assert refused.value.detail == f"invalid arg '{key}' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue"


def test_the_alternate_exchange() -> None:
    assert alternate_exchange("e", "/", {}) is None
    assert alternate_exchange("e", "/", {"alternate-exchange": ""}) == ""
    assert alternate_exchange("e", "/", {"alternate-exchange": "a", "x": 1}) == "a"
    for value, name in TYPES[1:]:
        with pytest.raises(ChannelError) as refused:
            alternate_exchange("e", "/", {"alternate-exchange": value})
        assert refused.value.text == (
            f"PRECONDITION_FAILED - invalid type '{name}' for arg 'alternate-exchange' in exchange 'e' in vhost '/'"
        )


def test_exchange_types() -> None:
    check_exchange_type("topic", ["direct", "topic"])
    for unknown in ("zzz", "", "Topic"):
        with pytest.raises(ChannelError) as refused:
            check_exchange_type(unknown, ["direct", "topic"])
        assert refused.value.text == f"PRECONDITION_FAILED - unknown exchange type '{unknown}'"


# ---- Erlang's notation


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, "5"),
        (Int64(-5), "-5"),
        (Timestamp(5), "5"),
        (True, "true"),
        (False, "false"),
        (None, "undefined"),
        ("", "<<>>"),
        ("abc", '<<"abc">>'),
        ("zü", '<<"zü">>'),
        ("ā", "<<196,129>>"),
        ('a"\\\n\x1b', '<<"a\\"\\\\\\n\\e">>'),
        ("a\x01", "<<97,1>>"),
        (b"\x7f", "<<127>>"),
        (b"abc", '<<"abc">>'),
        (Decimal("-3.14"), "{2,-314}"),
        (Decimal(5), "{0,5}"),
        ([], "[]"),
        ({}, "[]"),
        ([1, "x", None, True, 1.5], '[{signedint,1},{longstr,<<"x">>},{void,undefined},{bool,true},{double,1.5}]'),
        ({"a": {"b": Int8(1)}}, '[{<<"a">>,table,[{<<"b">>,byte,1}]}]'),
        (5.0, "5.0"),
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (100.0, "100.0"),
        (1000.0, "1.0e3"),
        (1500.0, "1.5e3"),
        (99999.0, "99999.0"),
        (1e22, "1.0e22"),
        (1e-7, "1.0e-7"),
        (0.001, "0.001"),
        (-0.00012345, "-1.2345e-4"),
        (123456789.125, "123456789.125"),
        (float("inf"), "inf"),
    ],
)
def test_values_as_erlang_writes_them(value: Value, shown: str) -> None:
    assert erlang_term(value) == shown


def test_texts_as_erlang_writes_them() -> None:
    assert erlang_string('it\'s "so"') == '"it\'s \\"so\\""'
    assert erlang_string("zü") == '"zü"'
    assert erlang_string("a\x01") == "[97,1]"
    assert erlang_string("ā") == "[196,129]"
