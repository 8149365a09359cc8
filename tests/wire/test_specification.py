"""The declared methods, properties and constants against the specification's list and RabbitMQ's additions."""

from __future__ import annotations

import dataclasses

import pytest

from rabbitish.errors import ReplyCode
from rabbitish.wire import frames, methods
from rabbitish.wire.properties import Properties

from . import specification
from .specification import EXTENSIONS, RENAMED, REPLIES_ADDED, RESERVED, MethodFact

ALL = specification.facts(specification.METHODS) + specification.facts(EXTENSIONS)


def our_name(fact: MethodFact, argument: str) -> str:
    if argument.startswith("reserved-"):
        return RESERVED.get(fact.name, {"reserved-1": "ticket"})[argument]
    return RENAMED.get(argument, argument.replace("-", "_"))


def test_the_list_is_whole() -> None:
    assert len(specification.facts(specification.METHODS)) == 55
    assert len(ALL) == len({fact.name for fact in ALL}) == 66


def test_there_are_exactly_the_listed_methods() -> None:
    assert set(methods.METHODS) == {fact.class_id << 16 | fact.method_id for fact in ALL}


@pytest.mark.parametrize("fact", ALL, ids=lambda fact: fact.name)
def test_a_method_is_as_listed(fact: MethodFact) -> None:
    cls = methods.METHODS[fact.class_id << 16 | fact.method_id]
    assert (cls.class_id, cls.method_id, cls.name) == (fact.class_id, fact.method_id, fact.name)
    assert cls.has_content is fact.has_content
    assert list(cls.fields.items()) == [(our_name(fact, name), kind) for name, kind in fact.arguments]
    assert [field.name for field in dataclasses.fields(cls)] == list(cls.fields)  # type: ignore[arg-type]
    assert cls.replies == REPLIES_ADDED.get(fact.name, fact.replies)


@pytest.mark.parametrize("fact", ALL, ids=lambda fact: fact.name)
def test_a_method_is_exported_under_the_name_that_its_amqp_name_gives(fact: MethodFact) -> None:
    exported = "".join(word.capitalize() for word in fact.name.replace(".", "-").split("-"))
    assert getattr(methods, exported).name == fact.name
    assert exported in methods.__all__


def test_who_waits_for_whom() -> None:
    """A synchronous method is a reply, or has replies; all replies exist."""
    answers = {reply for cls in methods.METHODS.values() for reply in cls.replies}
    assert answers <= {fact.name for fact in ALL}
    for fact in ALL:
        waits = bool(methods.METHODS[fact.class_id << 16 | fact.method_id].replies)
        if fact.name not in ("basic.recover", "channel.flow-ok"):  # not marked synchronous, though half of a pair
            assert fact.synchronous == (waits or fact.name in answers)


def test_properties_are_as_listed() -> None:
    listed = [argument.split(":") for argument in specification.PROPERTIES.split()]
    assert [field.name for field in dataclasses.fields(Properties)] == [name.replace("-", "_") for name, _ in listed]
    sample = {"shortstr": "a", "table": {}, "octet": 7, "timestamp": 1}
    wire = {"shortstr": b"\x01a", "table": bytes(4), "octet": b"\x07", "timestamp": bytes(7) + b"\x01"}
    for bit, (name, letter) in enumerate(listed):
        kind = specification.TYPES[letter]
        raw = Properties(**{name.replace("-", "_"): sample[kind]}).encode()  # type: ignore[arg-type]
        assert raw == (0x8000 >> bit).to_bytes(2, "big") + wire[kind]


def test_constants_are_as_listed() -> None:
    for name, value in specification.CONSTANTS.items():
        assert getattr(frames, name.replace("-", "_").upper()) == value
    for name, value in specification.REPLY_CODES.items():
        assert ReplyCode[name.replace("-", "_").upper()] == value
    assert {code.name for code in ReplyCode} - {
        name.replace("-", "_").upper() for name in specification.REPLY_CODES
    } == {
        "NO_ROUTE"  # RabbitMQ's 312, for a mandatory message that no queue takes
    }
