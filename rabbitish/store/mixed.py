"""What PUBLISH_MIXED says of its messages that PUBLISH says once for all: sizes, and when they expire, in columns.

A publisher's messages mostly have something of their own each. Those that came together are one record all the same;
what a start asks of them it reads without looking at any of them. Between the route and the contents stand, big endian,
the bytes of each content (u32), the bytes of each body (u32) and, if they expire, each one's expiration in milliseconds
(u64).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise, repeat
from struct import Struct
from typing import NamedTuple

from rabbitish.core.message import Traits

MIXED_HEAD = Struct(">IQIBB")  # size of the route that follows, when, how many messages, their priority, flags
_EXPIRE = 1
_SWAPPED = array("H", b"\1\0")[0] == 1


class Mixed(NamedTuple):
    """The columns."""

    priority: int
    contents: array[int]
    """Bytes of each one's content."""
    bodies: array[int]
    """Bytes of each one's body."""
    expirations: array[int] | None
    """Each one's in milliseconds; None: they do not expire."""

    @classmethod
    def of(
        cls, priority: int, contents: Sequence[bytes], bodies: Sequence[int], expirations: Sequence[int] | None
    ) -> Mixed:
        """Those of messages with these contents, bodies of such sizes, and so on."""
        own = None if expirations is None else array("q", expirations)
        return cls(priority, array("I", map(len, contents)), array("I", bodies), own)

    def encode(self, route: bytes, now: int) -> bytes:
        """A record's body up to the contents."""
        flags = _EXPIRE if self.expirations is not None else 0
        head = MIXED_HEAD.pack(len(route), now, len(self.contents), self.priority, flags)
        columns = [_swapped(column).tobytes() for column in self._columns()]
        return b"".join((head, route, *columns))

    @classmethod
    def decode(cls, data: bytes, body: int) -> tuple[Mixed, int, int]:
        """What a record says whose body begins there; where its route ends, and where its contents begin."""
        route_bytes, _, count, priority, flags = MIXED_HEAD.unpack_from(data, body)
        route_end = at = body + MIXED_HEAD.size + route_bytes
        columns = array("I"), array("I"), array("q")
        for column in columns if flags & _EXPIRE else columns[:2]:
            end = at + count * column.itemsize
            column.frombytes(data[at:end])
            if len(column) != count:
                raise ValueError("its columns are not all there")
            at = end
        contents, bodies, expirations = map(_swapped, columns)
        return cls(priority, contents, bodies, expirations if flags & _EXPIRE else None), route_end, at

    def _columns(self) -> Iterator[array[int]]:
        yield from (self.contents, self.bodies)
        if self.expirations is not None:
            yield self.expirations

    def part(self, start: int, stop: int) -> Mixed:
        """That of some of the messages."""
        expirations = self.expirations[start:stop] if self.expirations is not None else None
        return Mixed(self.priority, self.contents[start:stop], self.bodies[start:stop], expirations)

    @property
    def alike(self) -> bool:
        """Whether all have bodies of one size, and expire after the same time or not at all."""
        own = self.expirations
        return _same(self.bodies) and (own is None or _same(own))

    def spans(self, at: int) -> Iterator[tuple[int, int]]:
        """Where each content starts and ends if the first one starts there."""
        return pairwise(accumulate(self.contents, initial=at))

    def kinds(self, *, persistent: bool = True) -> Iterator[tuple[Traits, int]]:
        """Each one's traits and the size of its body."""
        expirations = repeat(None) if self.expirations is None else self.expirations
        for size, expiration in zip(self.bodies, expirations, strict=False):
            yield Traits(persistent, self.priority, expiration), size


def _same(column: array[int]) -> bool:
    return column.count(column[0]) == len(column)


def _swapped(column: array[int]) -> array[int]:
    """The same numbers with the bytes as they are on disk, or the other way."""
    if not _SWAPPED:
        return column
    other = column[:]
    other.byteswap()
    return other
