"""Where a log's records are: in memory until they are written, then in their segment, found by number.

Records that came together are a piece. Once they are written, neighbouring pieces become one, so that a log of many
little batches takes no more memory than one of a few large; a piece that is much larger than what is read at a time is
divided when it is read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rabbitish.cluster.protocol.log import EpochStart
from rabbitish.store.files import Disk
from rabbitish.store.record import HEAD, SEGMENT_HEAD_BYTES, Damage, JournalDamaged, Type, decode_all, encode

# Records of about so many bytes are found together.
PIECE_BYTES = 64 * 1024
# So much of a snapshot is read, and sent, at a time.
_SNAPSHOT_BYTES = 256 * 1024


class Piece:
    """Neighbouring records: where they are, and the bytes themselves, in parts, until they are written."""

    __slots__ = ("first", "last", "offset", "parts", "segment", "serial", "size")

    def __init__(
        self, serial: int, first: int, last: int, segment: str, offset: int, size: int, parts: Sequence[bytes] | None
    ) -> None:
        self.serial = serial  # counts what is appended
        self.first = first
        self.last = last
        self.segment = segment
        self.offset = offset
        self.size = size
        self.parts = parts


class Place(NamedTuple):
    """A place in a segment."""

    segment: str
    offset: int


def _whole(data: bytes) -> int:
    """Where in `data`, which begins with a record, the last whole one ends; 0: not even the first is whole."""
    at, have = 0, len(data)
    while at + HEAD.size <= have:
        end: int = at + HEAD.size + HEAD.unpack_from(data, at)[0]
        if end > have:
            break
        at = end
    return at


def _bytes_of(piece: Piece, data: bytes) -> int:
    """How long a record is that begins like this. JournalDamaged: it ends there."""
    if len(data) < HEAD.size:
        raise JournalDamaged(piece.segment, piece.offset, "the file ends within a record's head")
    size: int = HEAD.unpack_from(data)[0]
    return HEAD.size + size


def _last_of(piece: Piece, data: bytes) -> int:
    """The number that records end with. JournalDamaged: they are none."""
    last = end = 0
    try:
        for record in decode_all(data, 0):
            last, end = record.lsn + record.span - 1, record.end
    except Damage as damage:
        raise JournalDamaged(piece.segment, piece.offset + damage.offset, damage.reason) from None
    if end < len(data):
        raise JournalDamaged(piece.segment, piece.offset + end, "zeroes instead of a record")
    return last


class Pieces:
    """All of a log behind its base, in order."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._all: list[Piece] = []
        self._serial = 0
        self._settled = 0  # up to that serial they are written

    def __len__(self) -> int:
        return len(self._all)

    @property
    def serial(self) -> int:
        """That of the newest."""
        return self._serial

    def add(self, first: int, last: int, at: Place, size: int, parts: Sequence[bytes]) -> None:
        """Records were appended."""
        self._serial += 1
        self._all.append(Piece(self._serial, first, last, at.segment, at.offset, size, parts))

    def found(self, first: int, last: int, at: Place, size: int) -> None:
        """A record was found on the disk."""
        piece = self._all[-1] if self._all else None
        if piece is not None and piece.segment == at.segment and piece.size < PIECE_BYTES:
            piece.last = last
            piece.size = at.offset + size - piece.offset
        else:
            self._all.append(Piece(0, first, last, at.segment, at.offset, size, None))

    def clear(self) -> None:
        """There is nothing any more."""
        self._all = []

    def forget(self, base: int) -> None:
        """Up to `base`, where a piece ends, nobody asks for records by number any more."""
        del self._all[: bisect_right(self._all, base, key=lambda piece: piece.last)]

    def written(self, serial: int) -> None:
        """What was appended up to that serial can be read back from the disk."""
        pieces = self._all
        start = bisect_right(pieces, self._settled, key=lambda piece: piece.serial)
        stop = bisect_right(pieces, serial, key=lambda piece: piece.serial)
        self._settled = max(self._settled, serial)
        merged = pieces[max(0, start - 1) : start]
        for piece in pieces[start:stop]:
            piece.parts = None
            before = merged[-1] if merged else None
            if (
                before is not None
                and before.segment == piece.segment
                and before.offset + before.size == piece.offset
                and before.size + piece.size <= PIECE_BYTES
            ):
                before.last, before.serial = piece.last, piece.serial
                before.size += piece.size
            else:
                merged.append(piece)
        pieces[max(0, start - 1) : stop] = merged

    def cut(self, lsn: int) -> Place | None:
        """Forget all behind `lsn`; where that began, None: there was nothing."""
        pieces = self._all
        keep = bisect_right(pieces, lsn, key=lambda piece: piece.first)
        place = Place(pieces[keep].segment, pieces[keep].offset) if keep < len(pieces) else None
        if keep and pieces[keep - 1].last > lsn:
            piece = pieces[keep - 1]
            size = self._size_up_to(piece, lsn)
            if piece.parts is not None:
                piece.parts = (b"".join(piece.parts)[:size],)
            piece.size, piece.last = size, lsn
            place = Place(piece.segment, piece.offset + size)
        del pieces[keep:]
        return place

    def read(self, after: int, most_bytes: int) -> tuple[bytes, int]:
        """Records behind `after`, and the number that they end with. JournalDamaged: they cannot be read back."""
        at = bisect_right(self._all, after + 1, key=lambda piece: piece.first) - 1
        parts: list[bytes] = []
        size = 0
        while at < len(self._all) and size < most_bytes:
            if self._all[at].size > 2 * most_bytes:
                self._divide(at, most_bytes)
            piece = self._all[at]
            if piece.last > after:
                if piece.first <= after:
                    parts.append(self._bytes(piece)[self._size_up_to(piece, after) :])
                else:
                    parts += piece.parts if piece.parts is not None else (self._bytes(piece),)
                size += piece.size
                after = piece.last
            at += 1
        return b"".join(parts), after

    def _bytes(self, piece: Piece) -> bytes:
        if piece.parts is not None:
            return b"".join(piece.parts)
        return _read_back(self._disk, piece.segment, piece.offset, piece.size)

    def _size_up_to(self, piece: Piece, lsn: int) -> int:
        """How many bytes of a piece come before the first record behind `lsn`. JournalDamaged: it cannot be read."""
        data = self._bytes(piece)
        at = 0
        try:
            for record in decode_all(data, 0):
                if record.lsn > lsn:
                    break
                at = record.end
        except Damage as damage:
            raise JournalDamaged(piece.segment, piece.offset + damage.offset, damage.reason) from None
        return at

    def _divide(self, index: int, most_bytes: int) -> None:
        """Into pieces of about so many bytes."""
        piece = self._all[index]
        data, first, offset = self._bytes(piece), piece.first, 0
        some: list[Piece] = []
        while offset < len(data):
            part = data[offset : offset + most_bytes]
            whole = _whole(part)
            part = (
                part[:whole] if whole else data[offset : offset + _bytes_of(piece, data[offset : offset + HEAD.size])]
            )
            size = len(part)
            last = _last_of(piece, part)
            parts = (part,) if piece.parts is not None else None
            some.append(Piece(piece.serial, first, last, piece.segment, piece.offset + offset, size, parts))
            first, offset = last + 1, offset + size
        self._all[index : index + 1] = some


def _read_back(disk: Disk, name: str, offset: int, size: int) -> bytes:
    try:
        return disk.read_at(name, offset, size)
    except OSError as error:
        raise JournalDamaged(name, offset, f"it cannot be read back ({error})") from error


class Snapshot:
    """The records that are kept up to a base, piece by piece; nothing of them is deleted while somebody holds this.

    JournalDamaged from the iterator: they cannot be read.
    """

    def __init__(self, disk: Disk, starts: Sequence[EpochStart], segments: Sequence[tuple[str, int]]) -> None:
        self._segments = segments
        self._pieces = _snapshot(disk, starts, segments)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)


def _snapshot(disk: Disk, starts: Sequence[EpochStart], segments: Sequence[tuple[str, int]]) -> Iterator[bytes]:
    if starts:  # whose records went with their segments
        yield b"".join(piece for start in starts for piece in encode(start.lsn, start.epoch, Type.EPOCH))
    for name, size in segments:
        offset = SEGMENT_HEAD_BYTES
        while offset < size:
            data = _read_back(disk, name, offset, min(_SNAPSHOT_BYTES, size - offset))
            piece = Piece(0, 0, 0, name, offset, len(data), None)
            whole = _whole(data)  # none: it is one record, larger than that
            data = data[:whole] or _read_back(disk, name, offset, min(_bytes_of(piece, data), size - offset))
            _last_of(piece, data)
            yield data
            offset += len(data)
