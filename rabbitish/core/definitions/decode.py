"""A definitions file from its bytes to lists of plain objects, one object at a time.

Knows JSON and the names of RabbitMQ's sections; what is in their objects is for others. Whatever cannot be read is an
`AccessError` with its line. Objects are decoded one by one, for a whole file at once would take long; a key that stands
twice in an object is refused, since nobody can know which was meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from rabbitish.core.access.fields import printable
from rabbitish.core.access.records import AccessError

SECTIONS = (
    "users",
    "vhosts",
    "permissions",
    "topic_permissions",
    "parameters",
    "global_parameters",
    "policies",
    "exchanges",
    "queues",
    "bindings",
)
"""What a file may have lists of, in the order in which they are looked at."""

HEADERS = (
    "rabbit_version",
    "rabbitmq_version",
    "product_name",
    "product_version",
    "rabbitmq_definition_format",
    "original_cluster_name",
    "original_vhost_name",
    "explanation",
    "description",
    "metadata",
    "limits",
    "default_queue_type",
)
"""What else stands at the top of files of RabbitMQ 3.0 to 4.3; only the versions mean anything here."""

_space = re.compile(r"[ \t\r\n]*").match


@dataclass
class Document:
    """What a file says: its sections, and the version of RabbitMQ that it is from or pretends to be from."""

    sections: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    version: str = ""

    def section(self, name: str) -> list[dict[str, Any]]:
        """The objects of one section; none where the file has not got it."""
        return self.sections.get(name, [])


def read(data: bytes) -> Generator[None, None, Document]:
    """Take a file apart. AccessError: it is not JSON, or not definitions."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AccessError(f"line {line}: it is not UTF-8 text") from None
    yield
    reader = _Reader(text)
    document = Document()
    reader.expect("{", "definitions must be a JSON object")
    while (key := reader.key()) is not None:
        if key in document.sections:
            reader.fail(f'"{key}" stands there twice')
        if key in SECTIONS:
            objects: list[dict[str, Any]] = []
            document.sections[key] = objects
            reader.expect("[", f'"{key}" must be a list')
            while reader.more("]"):
                item = reader.value()
                if not isinstance(item, dict):
                    reader.fail(f"{key}[{len(objects)}] must be an object")
                objects.append(item)
                yield
        elif key in HEADERS:
            value = reader.value()
            if key == "rabbitmq_version" or (key == "rabbit_version" and not document.version):
                document.version = str(value)
        else:
            reader.fail(f'there is no section "{key}" in definitions')
    reader.end()
    return document


class _Reader:
    """JSON by pieces; `at` is how far the text is read. Of every complaint the line is told."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._first = False  # directly behind an opening bracket
        self._scan = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number).raw_decode

    def fail(self, problem: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        raise AccessError(printable(f"line {line}: {problem}")) from None

    def _next(self) -> str:
        """The character that comes next, if any."""
        match = _space(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._text[self._at : self._at + 1]

    def expect(self, char: str, otherwise: str) -> None:
        """Go past this character, which must come next."""
        if self._next() != char:
            self.fail(otherwise)
        self._at += 1
        self._first = True

    def more(self, closing: str) -> bool:
        """Whether there is another item before the bracket that closes; go past it, or past the comma."""
        char = self._next()
        if char == closing:
            self._at += 1
            self._first = False
            return False
        if not self._first:
            if char != ",":
                self.fail(f"it is not JSON: there must be a comma or {closing} here")
            self._at += 1
        self._first = False
        return True

    def key(self) -> str | None:
        """The next key of an object and past its colon; None at the end of the object."""
        if not self.more("}"):
            return None
        if self._next() != '"':
            self.fail("it is not JSON: there must be a key here")
        key = self.value()
        if self._next() != ":":
            self.fail("it is not JSON: there must be a colon here")
        self._at += 1
        return str(key)

    def value(self) -> Any:
        """The value that comes next."""
        self._next()
        try:
            value, self._at = self._scan(self._text, self._at)
        except json.JSONDecodeError as error:
            self._at = error.pos
            self.fail(f"it is not JSON: {error.msg}")
        except RecursionError:
            self.fail("it is nested too deeply")
        except ValueError as error:
            self.fail(str(error))
        self._first = False
        return value

    def end(self) -> None:
        """Nothing may follow."""
        if self._next():
            self.fail("it is not JSON: something follows the definitions")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f'the key "{next(key for key in keys if keys.count(key) > 1)}" stands twice in an object')
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"it is not JSON: {text} is no number")
