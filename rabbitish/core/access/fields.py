"""The fields of an object that somebody wrote as JSON, by name and kind; complaints say which object it is.

RabbitMQ 3.10 writes some objects as lists of pairs; those are taken for the objects that they mean. What is shown of a
value in a complaint fits a line, and is never a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from rabbitish.core.access.records import AccessError

T = TypeVar("T")

_SECRET = frozenset({"password", "password_hash"})  # whose values no complaint shows


def printable(text: str) -> str:
    """A text for people, whatever names are in it."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class Fields:
    """An object, and `where` it stands: its section and number, until somebody knows its name."""

    __slots__ = ("_fields", "where")

    def __init__(self, where: str, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self.where = where

    def refuse(self, problem: object) -> AccessError:
        """The complaint about this object."""
        return AccessError(printable(f"{self.where}: {problem}"))

    def explained(self, error: AccessError) -> AccessError:
        """A complaint that may not say yet which object it is about."""
        return error if str(error).startswith(printable(self.where)) else self.refuse(error)

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

    def inside(self, key: str) -> Self:
        """The fields of an object in it; none where nothing is said."""
        return type(self)(f"{self.where}: {key}", self.object_(key))

    def but(self, *keys: str) -> dict[str, Any]:
        """All other fields than these."""
        return {key: value for key, value in self._fields.items() if key not in keys}

    def strings(self, key: str) -> list[str]:
        """A list of strings; empty where nothing is said."""
        return self._strings(key, self._fields.get(key))

    def _strings(self, key: str, value: object) -> list[str]:
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.refuse(f"{key} must be a list of strings, not {_shown(value)}")
        return value


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
