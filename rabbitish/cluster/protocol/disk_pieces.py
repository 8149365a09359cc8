"""Where a log's records are: in memory until they are written, then in their segment, found by number."""

from __future__ import annotations

# Records of about so many bytes are found together.
PIECE_BYTES = 64 * 1024


class Piece:
    """Neighbouring records: where they are, and the bytes themselves until they are written."""

    __slots__ = ("data", "first", "last", "offset", "segment", "size")

    def __init__(self, first: int, last: int, segment: str, offset: int, size: int, data: bytes | None) -> None:
        self.first = first
        self.last = last
        self.segment = segment
        self.offset = offset
        self.size = size
        self.data = data
