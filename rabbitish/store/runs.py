"""Reads PUBLISH records of one message each that stand one behind the other: what most publishers' traffic comes to.

Where messages differ in their properties (an id, an expiration of its own) each is a record, and a start has to read
millions. So a run of them that went the same way is read in one loop into columns. It ends before whatever is anything
else, or is not right: that is looked at by those who read record by record, and say what it is.
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import NamedTuple

from rabbitish.core.message import Stamp
from rabbitish.store.bodies import Route
from rabbitish.store.reader import PublishReader
from rabbitish.store.record import CHECKED_AT, HEAD, PUBLISH_HEAD, Type

_LAYOUT = HEAD.format + PUBLISH_HEAD.format[1:]  # of a record, up to its route
_ROUTE_AT = HEAD.size + PUBLISH_HEAD.size
# So many kinds of messages are remembered. Where each is of another kind there may be millions.
KINDS_KEPT = 4096


class Kind(NamedTuple):
    """What messages have in common that were published alike, as far as a start asks."""

    number: int
    """Its stamp's among those that are kept, from 1; 0: it is not."""
    size: int
    priority: int
    expiration: int
    """In milliseconds, -1: none."""


class Run(NamedTuple):
    """Messages with consecutive numbers, a record each."""

    route: Route
    offsets: list[int]
    nows: list[int]
    kinds: list[Kind]
    end: int
    """Offset of the first byte behind it."""


class RunReader:
    """Reads runs."""

    def __init__(self, publishes: PublishReader, most_bytes: int = 1 << 63) -> None:
        """A run goes no further than so many bytes."""
        self._publishes = publishes
        self._most_bytes = most_bytes
        self._known: dict[bytes, dict[bytes, Kind]] = {}  # by route, and by how a message begins
        self._layouts: dict[int, Struct] = {}  # by the size of a route

    def read(self, data: bytes, offset: int, due: int, epoch: int, kept: dict[Stamp, int]) -> Run | None:
        """The run that begins with record number `due` at `offset`; None: there is none.

        Records of later epochs are not part of it. `kept` numbers the stamps that are.
        """
        have = min(len(data), offset + self._most_bytes)
        if have - offset < _ROUTE_AT:
            return None
        publishes, codec = self._publishes, self._publishes.codec
        size = PUBLISH_HEAD.unpack_from(data, offset + HEAD.size)[0]
        if size > have - offset:
            return None
        raw = data[offset + _ROUTE_AT : offset + _ROUTE_AT + size]
        known = self._known.setdefault(raw, {}) if len(self._known) < KINDS_KEPT else self._known.get(raw, {})
        layout = self._layouts.get(size)
        if layout is None:
            layout = self._layouts[size] = Struct(f"{_LAYOUT}{size}s")
        unpack, head_bytes, crc32, view = layout.unpack_from, layout.size, zlib.crc32, memoryview(data)
        beginning, skim, publish = codec.beginning, codec.skim, int(Type.PUBLISH)
        offsets: list[int] = []
        nows: list[int] = []
        kinds: list[Kind] = []
        while offset + head_bytes <= have:
            length, crc, lsn, of_epoch, kind, _, route_bytes, now, count, _, route = unpack(data, offset)
            end = offset + HEAD.size + length
            if kind != publish or count != 1 or lsn != due or of_epoch > epoch or route != raw or route_bytes != size:
                break
            if end > have or crc32(view[offset + CHECKED_AT : end]) != crc:
                break
            start = beginning(data, offset + head_bytes)
            found = known.get(start)
            if found is None:
                found = Kind(0, *skim(start))
                if len(kept) < KINDS_KEPT:
                    found = known[start] = self._kept(found, data, offset, kept)
            offsets.append(offset)
            nows.append(now)
            kinds.append(found)
            due += 1
            offset = end
        if not offsets:
            return None
        return Run(publishes.head(data, offsets[0] + HEAD.size).route, offsets, nows, kinds, offset)

    def _kept(self, kind: Kind, data: bytes, offset: int, kept: dict[Stamp, int]) -> Kind:
        stamp = self._publishes.stamp(data, self._publishes.head(data, offset + HEAD.size))
        return kind._replace(number=kept.setdefault(stamp, len(kept) + 1))
