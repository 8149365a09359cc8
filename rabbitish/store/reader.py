"""Reads messages back from where they were written, by their numbers.

A read takes whole records, checks them, and is large enough to hold what is likely to be wanted next. What is found
damaged here was whole when it was written, or at the last start: nobody can tell what else is, so that goes up and
stops the broker.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import NamedTuple

from rabbitish.core.message import Message, Stamp
from rabbitish.store.bodies import Codec, Ranges, Route
from rabbitish.store.files import Disk
from rabbitish.store.mixed import MIXED_HEAD, Mixed
from rabbitish.store.record import CHECKED_AT, HEAD, PUBLISH_HEAD, PUBLISHES, JournalDamaged, Type
from rabbitish.store.segments import Segment, Segments

# What is read at a time: little after a jump, and more as long as one read follows the other.
_LEAST_READ_BYTES = 16 * 1024
_MOST_READ_BYTES = 256 * 1024
_ROUTES_KNOWN = 4096


class Publish(NamedTuple):
    """A record of messages, read but for their contents, which are `length` times `size` bytes from `contents` on."""

    now: int
    length: int
    size: int
    contents: int
    route: Route
    mixed: Mixed | None = None
    """Of a PUBLISH_MIXED: the sizes of its contents, and more."""

    def start(self, index: int) -> int:
        """Where the content of that one of its messages starts."""
        if self.mixed is None:
            return self.contents + index * self.size
        return self.contents + sum(self.mixed.contents[:index])

    def part(self, start: int, stop: int, route: bytes) -> tuple[Type, bytes]:
        """The record of some of its messages with another route, without their contents."""
        if self.mixed is not None:
            return Type.PUBLISH_MIXED, self.mixed.part(start, stop).encode(route, self.now)
        return Type.PUBLISH, PUBLISH_HEAD.pack(len(route), self.now, stop - start, self.size) + route


class PublishReader:
    """Reads records of messages; keeps what many of them have in common."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._routes: dict[bytes, Route] = {}

    def head(self, data: bytes, body: int, kind: int = Type.PUBLISH) -> Publish:
        """What the record is about whose body begins there. ValueError: it is too short."""
        route_bytes, now, count, size = PUBLISH_HEAD.unpack_from(data, body)
        if kind == Type.PUBLISH_MIXED:
            mixed, route_end, contents = Mixed.decode(data, body)
            return Publish(now, count, 0, contents, self._route(data[body + MIXED_HEAD.size : route_end]), mixed)
        start = body + PUBLISH_HEAD.size
        contents = start + route_bytes
        return Publish(now, count, size, contents, self._route(data[start:contents]))

    def _route(self, raw: bytes) -> Route:
        route = self._routes.get(raw)
        if route is None:
            if len(self._routes) >= _ROUTES_KNOWN:
                self._routes.clear()
            route = self._routes[raw] = Route.decode(raw, self.codec)
        return route

    def stamp(self, data: bytes, publish: Publish) -> Stamp:
        """The stamp of the messages of a record in which all have the same."""
        route = publish.route
        if publish.mixed is not None:
            return self.codec.stamp_of(route.address, route.channel, *next(publish.mixed.kinds()))
        return self.codec.stamp(route.address, route.channel, data, publish.contents)

    def stamps(self, data: bytes, publish: Publish, skip: int, count: int) -> Iterable[Stamp]:
        """The stamps of `count` of its messages after the first `skip`."""
        mixed, route = publish.mixed, publish.route
        if mixed is None or mixed.alike:
            return repeat(self.stamp(data, publish), count)
        stamp_of = self.codec.stamp_of
        kinds = mixed.part(skip, skip + count).kinds()
        return [stamp_of(route.address, route.channel, traits, size) for traits, size in kinds]

    def messages(self, data: bytes, publish: Publish, skip: int, count: int, lsn: int) -> list[Message]:
        """`count` of its messages after the first `skip`, numbered from `lsn` on (0: not at all)."""
        start, size, mixed = publish.start(skip), publish.size, publish.mixed
        if mixed is None:
            contents = [data[at : at + size] for at in range(start, start + count * size, size)]
        else:
            contents = [data[at:end] for at, end in mixed.part(skip, skip + count).spans(start)]
        return self.codec.messages(self.stamps(data, publish, skip, count), contents, lsn)


class Reader:
    """Reads messages of these segments."""

    def __init__(
        self, disk: Disk, segments: Segments, publishes: PublishReader, on_failure: Callable[[Exception], None]
    ) -> None:
        self._disk = disk
        self._segments = segments
        self._publishes = publishes
        self._on_failure = on_failure
        # What was read last, since what is wanted next is mostly near it.
        self._file = ""
        self._data = b""
        self._base = 0
        self._ahead = _LEAST_READ_BYTES
        self._record_at = -1  # its offset in the file: of the record that was looked at last, and is in there
        self._publish: Publish | None = None

    def read(self, ranges: Ranges, *, numbered: bool) -> Iterator[list[Message]]:
        """The messages of each range. JournalDamaged, OSError: they cannot be read; `on_failure` heard of it."""
        firsts, counts = ranges[::2], ranges[1::2]
        index = 0
        while index < len(firsts):
            first, end, stop = firsts[index], firsts[index], index
            while stop < len(firsts) and firsts[stop] == end:  # what follows in a record is read together
                end += counts[stop]
                stop += 1
            messages: list[Message] = []
            for publish, skip, some in self._parts(first, end - first):
                lsn = first + len(messages) if numbered else 0
                messages += self._publishes.messages(self._data, publish, skip, some, lsn)
                have = first + len(messages)
                while index < stop and firsts[index] + counts[index] <= have:
                    yield messages[firsts[index] - first : firsts[index] - first + counts[index]]
                    index += 1
            for _ in range(index, stop):  # empty ones, and nothing else
                yield []
            index = stop

    def husks(self, ranges: Ranges) -> Iterator[tuple[Message, int]]:
        """Husks of the messages, and when they were published. See `read` for errors."""
        husk = self._publishes.codec.husk
        for lsn, count in zip(ranges[::2], ranges[1::2], strict=True):
            for publish, skip, some in self._parts(lsn, count):
                for number, stamp in enumerate(self._publishes.stamps(self._data, publish, skip, some), lsn):
                    yield husk(stamp, number), publish.now
                lsn += some

    def _parts(self, first: int, count: int) -> Iterator[tuple[Publish, int, int]]:
        """The records that have these messages, one in `_data` at a time: which to skip there, and how many to take."""
        segment = self._segments.of(first)
        index = segment.find(first)
        while count:
            try:
                if not segment.has(index, first):
                    raise JournalDamaged(segment.head.name, 0, f"there is no message {first}, by what is known of it,")
                lsn = segment.lsns[index]
                publish = self._record(segment, segment.offsets[index], lsn)
            except (JournalDamaged, OSError) as error:
                self._on_failure(error)
                raise
            skip = first - lsn
            some = min(count, publish.length - skip)
            yield publish, skip, some
            if len(self._data) > _MOST_READ_BYTES and skip + some == publish.length:
                self._forget()
            first += some
            count -= some
            index += 1
            if count and index == len(segment.lsns):  # a segment may begin between two that follow on each other
                segment = self._segments.of(first)
                index = segment.find(first)

    def _record(self, segment: Segment, offset: int, lsn: int) -> Publish:
        """The record at `offset`, which is in `_data` then.

        What was read ahead of an open segment may have been zeroes, or half a record, when it was read: nothing is
        damaged that was not read for its own sake.
        """
        try:
            return self._found(segment, offset, lsn)
        except JournalDamaged:
            if self._base == offset:
                raise
        self._file = ""
        return self._found(segment, offset, lsn)

    def _found(self, segment: Segment, offset: int, lsn: int) -> Publish:
        name = segment.head.name
        if self._publish is not None and (self._file, self._record_at) == (name, offset):
            return self._publish  # often much that is wanted is in one record
        if name != self._file or not self._base <= offset <= self._base + len(self._data) - HEAD.size:
            self._read(name, offset, 0)
        size, crc, found, _, kind, _ = HEAD.unpack_from(self._data, offset - self._base)
        if offset + HEAD.size + size > segment.size:
            raise JournalDamaged(name, offset, "the file ends within a record")
        if offset + HEAD.size + size > self._base + len(self._data):
            self._read(name, offset, HEAD.size + size)
        start = offset - self._base
        body = start + HEAD.size
        if zlib.crc32(memoryview(self._data)[start + CHECKED_AT : body + size]) != crc or body + size > len(self._data):
            raise JournalDamaged(name, offset, "checksum does not match")
        if found != lsn or kind not in PUBLISHES:
            raise JournalDamaged(name, offset, f"not the record {lsn} that was written there")
        self._publish, self._record_at = self._publishes.head(self._data, body, kind), offset
        return self._publish

    def _forget(self) -> None:
        """A record that was larger than what is read at a time was read to its end: it is not wanted again soon."""
        self._base += len(self._data)
        self._data, self._publish = b"", None

    def _read(self, name: str, offset: int, least: int) -> None:
        follows = name == self._file and 0 <= offset - self._base <= len(self._data) + self._ahead
        self._ahead = min(2 * self._ahead, _MOST_READ_BYTES) if follows else _LEAST_READ_BYTES
        self._data = self._disk.read_at(name, offset, max(self._ahead, least))
        self._file, self._base, self._publish = name, offset, None
        if len(self._data) < HEAD.size:
            raise JournalDamaged(name, offset, "the file ends within a record's head")
