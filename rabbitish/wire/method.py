"""What every AMQP method has in common, and the register that decoding looks methods up in.

`@method(class_id, method_id)` makes a frozen, slotted dataclass out of a declaration and compiles its codec; the class
name gives the AMQP name (QueueDeclareOk: "queue.declare-ok"). Which methods there are is said in methods/.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from struct import Struct
from typing import Any, ClassVar, TypeVar, dataclass_transform

from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.wire.codec import IDS as IDS
from rabbitish.wire.codec import FieldType, Layout, field_types
from rabbitish.wire.frames import method_frame

_KEY = Struct(">I")


class Method:
    """One AMQP method with its arguments, as it is sent or was received."""

    __slots__ = ()

    class_id: ClassVar[int]
    method_id: ClassVar[int]
    name: ClassVar[str]
    """AMQP's name: "queue.declare-ok"."""
    has_content: ClassVar[bool]
    """A content header and body follow it."""
    replies: ClassVar[tuple[str, ...]]
    """The methods that may answer it; empty for one that is not synchronous."""
    fields: ClassVar[dict[str, FieldType]]
    """The arguments in wire order: name -> AMQP type."""
    _head: ClassVar[bytes]
    _layout: ClassVar[Layout]
    _values: ClassVar[Callable[[Any], list[Any]]]

    # As a dataclass has them; written once instead of compiled for each of sixty classes at every start.

    def __repr__(self) -> str:
        values = zip(self.fields, self._all_values(), strict=True)
        return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in values)})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._all_values() == other._all_values()

    def __hash__(self) -> int:
        return hash(self._all_values())

    def _all_values(self) -> tuple[Any, ...]:
        return tuple(type(self)._values(self))

    def encode(self) -> bytes:
        """The payload of a method frame. ValueError, TypeError: an argument that its type cannot hold."""
        return self._layout.encode(self._head, type(self)._values(self))

    def frame(self, channel: int) -> bytes:
        """The whole method frame."""
        return method_frame(channel, self.encode())


METHODS: dict[int, type[Method]] = {}
"""Class id << 16 | method id -> method."""

M = TypeVar("M", bound=Method)


def decode_method(payload: bytes) -> Method:
    """The method in a method frame's payload, which starts with class and method id.

    ConnectionFailure: 503 for a method that does not exist, 501 for arguments that do not fit, both blamed on the
    method; 501 for a short string that is not UTF-8, and what a table raises, blamed on none (as in RabbitMQ).

    RabbitMQ drops the connection without a word for a method it does not know. 503 COMMAND_INVALID is what it answers
    for one that it knows and does not expect, and tells a client's author more than a reset does.
    """
    if len(payload) < IDS.size:
        raise ConnectionFailure(ReplyCode.FRAME_ERROR, "method frame without class and method id")
    cls = METHODS.get(_KEY.unpack_from(payload)[0])
    if cls is None:
        raise _unknown_method(*IDS.unpack_from(payload))
    return cls(*cls._layout.decode(payload))


def _unknown_method(class_id: int, method_id: int) -> ConnectionFailure:
    failure = ConnectionFailure(ReplyCode.COMMAND_INVALID, f"unknown method ({class_id},{method_id})")
    failure.class_id, failure.method_id = class_id, method_id
    return failure


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def method(
    class_id: int, method_id: int, *, has_content: bool = False, replies: tuple[str, ...] = ()
) -> Callable[[type[M]], type[M]]:
    """Register the decorated declaration as the method with these ids.

    Its short strings must be UTF-8 unless content follows it: that is where RabbitMQ checks.
    """

    def register(declaration: type[M]) -> type[M]:
        cls = dataclass(frozen=True, slots=True, repr=False, eq=False)(declaration)
        cls.class_id, cls.method_id, cls.name = class_id, method_id, _amqp_name(cls.__name__)
        cls.has_content, cls.replies = has_content, replies
        cls.fields = field_types(cls)
        cls._head = IDS.pack(class_id, method_id)
        cls._layout = Layout(cls.fields, strict_text=not has_content)
        cls._values = _values_getter(list(cls.fields))
        assert class_id << 16 | method_id not in METHODS, "two methods with the same ids"
        METHODS[class_id << 16 | method_id] = cls
        return cls

    return register


def _amqp_name(name: str) -> str:
    words = [word.lower() for word in re.findall("[A-Z][a-z]*", name)]
    return f"{words[0]}.{'-'.join(words[1:])}"


def _values_getter(names: list[str]) -> Callable[[Any], Any]:
    if not names:
        return lambda _: ()
    getter = attrgetter(*names)
    return getter if len(names) > 1 else lambda self: (getter(self),)
