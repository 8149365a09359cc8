"""One object of a definitions file: what it may have beyond what any object may (access/fields.py).

Keys that nobody knows are refused, for one that is misspelt would silently not count.
"""

from __future__ import annotations

from rabbitish.core.access.fields import Fields
from rabbitish.core.access.records import LONGEST_NAME_BYTES
from rabbitish.core.definitions.tables import from_json, raw_name
from rabbitish.values import Table


class Entry(Fields):
    """An object of a section."""

    __slots__ = ()

    def only(self, known: frozenset[str]) -> None:
        """AccessError: there are other keys than these."""
        if not self._fields.keys() <= known:
            unknown = sorted(self._fields.keys() - known)[0]
            raise self.refuse(f'there is no key "{unknown}"; there are {", ".join(sorted(known))}')

    def tags(self, key: str) -> list[str]:
        """A list of strings, or one with commas."""
        value = self._fields.get(key)
        tags = self._strings(key, value.split(",") if isinstance(value, str) else value)
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
