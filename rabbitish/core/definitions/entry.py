"""One object of a definitions file: its fields by name and kind, and the name by which complaints call it.

Keys that nobody knows are refused, for one that is misspelt would silently not count. RabbitMQ 3.10 writes some objects
as lists of pairs; those are taken for the objects that they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from rabbitish.core.access.records import LONGEST_NAME_BYTES, AccessError
from rabbitish.core.definitions.tables import from_json, raw_name
from rabbitish.values import Table

T = TypeVar("T")

_SECRET = frozenset({"password", "password_hash"})  # whose values no complaint shows


def printable(text: str) -> str:
    """A text for people, whatever names are in it."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class Entry:
    """An object and where it stands: its section and number, until `called` says its name."""

    __slots__ = ("_fields", "where")

    def __init__(self, section: str, number: int, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self.where = f"{section}[{number}]"

    def refuse(self, problem: object) -> AccessError:
        """The complaint about this object."""
        return AccessError(printable(f"{self.where}: {problem}"))

    def explained(self, error: AccessError) -> AccessError:
        """A complaint that may not say yet which object it is about."""
        return error if str(error).startswith(printable(self.where)) else self.refuse(error)

    def only(self, known: frozenset[str]) -> None:
        """AccessError: there are other keys than these."""
        if not self._fields.keys() <= known:
            unknown = sorted(self._fields.keys() - known)[0]
            raise self.refuse(f'there is no key "{unknown}"; there are {", ".join(sorted(known))}')

    def has(self, key: str) -> bool:
        """Whether anything is said of this."""
        return self._fields.get(key) is not None

    def _get(self, key: str, kind: type[T], what: str, default: T | None) -> T:
        value = self._fields.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        if key not in self._fields:
            raise self.refuse(f"{key} is missing")
        told = "" if key in _SECRET else f", not {_shown(value)}"
        raise self.refuse(f"{key} must be {what}{told}")

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        return self._get(key, str, "a string", default)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        return self._get(key, bool, "true or false", default)

    def value(self, key: str) -> Any:
        """Anything at all, but something; lists of pairs are objects."""
        if key not in self._fields:
            raise self.refuse(f"{key} is missing")
        return self._fields[key]

    def object_(self, key: str) -> dict[str, Any]:
        """An object; empty where nothing is said."""
        value = self._fields.get(key)
        found = as_object(value) if value is not None else {}
        if found is None:
            raise self.refuse(f"{key} must be an object, not {_shown(value)}")
        return found

    def tags(self, key: str) -> list[str]:
        """A list of strings, or one with commas."""
        value = self._fields.get(key)
        if value is None:
            return []
        tags = value.split(",") if isinstance(value, str) else value
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise self.refuse(f"{key} must be a list of strings, not {_shown(value)}")
        return [tag.strip() for tag in tags if tag.strip()]

    def name(self, key: str, *, empty: bool = False) -> str:
        """A string that AMQP can carry as a name or a routing key."""
        text = self.text(key)
        try:
            size = len(raw_name(text))
        except ValueError as error:
            raise self.refuse(f"{key}: {error}") from None
        if not text and not empty:
            raise self.refuse(f"{key} must not be empty")
        if size > LONGEST_NAME_BYTES:
            raise self.refuse(f"{key} is longer than {LONGEST_NAME_BYTES} bytes")
        return text

    def arguments(self) -> Table:
        """The field table under "arguments"."""
        found = self.object_("arguments")
        if not found:
            return {}
        try:
            return from_json(found)
        except ValueError as error:
            raise self.refuse(f"arguments: {error}") from None


def as_object(value: object) -> dict[str, Any] | None:
    """An object, or what RabbitMQ writes for one: an empty list, or one of pairs. None: it is something else."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and all(_is_pair(item) for item in value):
        found = dict(value)
        return found if len(found) == len(value) else None
    return None


def _is_pair(item: object) -> bool:
    return isinstance(item, list) and len(item) == 2 and isinstance(item[0], str)


def _shown(value: object) -> str:
    """A JSON value in few words."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
