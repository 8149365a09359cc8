"""Where messages go that need not survive when they are too many for memory: files of their own, never synced.

Written as PUBLISH records in segments, as in the journal, so that they are read back the same way; but each segment
goes as soon as nothing in it is needed, and all of them when the broker starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from rabbitish.core.message import Message
from rabbitish.store.bodies import Codec, Ranges, Route
from rabbitish.store.files import Disk, File
from rabbitish.store.reader import PublishReader, Reader
from rabbitish.store.record import PUBLISH_HEAD, SegmentHead, Type, encode
from rabbitish.store.segments import WEIGHT_BYTES, Segment, Segments

_QUEUE = 0  # in the segments' books everything belongs to one


class SpillHead(SegmentHead):
    """A segment of the spill."""

    @property
    def name(self) -> str:
        """Its file's name."""
        return f"spill-{self.sequence:012d}.tmp"


class Spill:
    """Files of messages that are not in memory."""

    def __init__(
        self,
        disk: Disk,
        codec: Codec,
        publishes: PublishReader,
        *,
        segment_bytes: int,
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._disk = disk
        self._codec = codec
        self._segments = Segments()
        self._segment_bytes = segment_bytes
        self._last_lsn = 0
        self._sequence = 0
        self._file: File | None = None
        self.reader = Reader(disk, self._segments, publishes, on_failure)
        for name in disk.names():
            if name.startswith("spill-"):
                disk.unlink(name)

    def write(self, messages: Sequence[Message]) -> int:
        """Keep messages of one stamp; the number of the first. OSError: they could not be written."""
        file, segment = self._open()
        first = messages[0]
        route = Route(self._codec.channel_of(first), (), first.address).encode()
        lsn = next_lsn = self._last_lsn + 1
        self._last_lsn += len(messages)
        size = segment.size
        records: list[bytes] = []
        # One record for all of one length: bodies may be in frames of other sizes though all else is alike.
        for length, group in groupby(self._codec.contents_of(messages), len):
            contents = list(group)
            head = PUBLISH_HEAD.pack(len(route), 0, len(contents), length)
            records.append(b"".join(encode(next_lsn, 0, Type.PUBLISH, head, route, *contents)))
            segment.note(next_lsn, size, len(contents))
            next_lsn += len(contents)
            size += len(records[-1])
        try:
            file.write(b"".join(records))
        except OSError:
            self._seal()  # nobody knows how much of it was written: the next one goes to a file of its own
            raise
        segment.add(_QUEUE, len(messages), len(messages) * (first.size + WEIGHT_BYTES))
        segment.size = size
        return lsn

    def _open(self) -> tuple[File, Segment]:
        if self._file is not None and self._segments.all[-1].size < self._segment_bytes:
            return self._file, self._segments.all[-1]
        self._seal()
        self._sequence += 1
        self._last_lsn += 1  # so that no range of numbers goes on from one segment to the next
        head = SpillHead(self._sequence, self._sequence, 0, self._last_lsn + 1, 0)
        self._file = self._disk.create(head.name)
        return self._file, self._segments.begin(head)

    def _seal(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def free(self, ranges: Ranges, size: int) -> None:
        """These messages are not needed any more; their bodies were `size` bytes."""
        self._segments.removed(_QUEUE, ranges, size)
        for segment in [segment for segment in self._segments.all[:-1] if not segment.counts]:
            self._segments.drop(segment)
            self._delete(segment.head.name)

    def _delete(self, name: str) -> None:
        self._disk.forget(name)
        try:
            self._disk.unlink(name)
        except OSError:  # it goes at the next start
            pass

    @property
    def disk_bytes(self) -> int:
        """What its files take."""
        return self._segments.disk_bytes

    def close(self) -> None:
        """Delete everything."""
        self._seal()
        for segment in self._segments.all:
            self._delete(segment.head.name)
