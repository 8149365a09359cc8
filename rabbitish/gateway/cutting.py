"""Cuts a stream of bytes into whole commands, and passes on those that a judge does not want changed.

A command is a method and, where content follows it, header and body. It is passed on when it is whole and not before,
so that whoever stops listening has never heard half of one. Contents of different channels may be mixed frame by frame;
they come out one after the other. Nothing is decoded but heads of frames, and what passes unchanged is not taken apart:
a lot of commands in one read is one piece again.

What cannot be cut (a frame too large, out of turn, of no known type, a method that does not decode where its content is
still to come) is passed on as it is, at once, and so is everything after it: the other end says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from rabbitish.errors import ConnectionFailure
from rabbitish.wire.frames import FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, FRAME_OVERHEAD
from rabbitish.wire.methods import METHODS, Method, decode_method

Judge = Callable[[int, int, bytes, int, int], bytes | None]
"""(method's key, channel, data, start, end) of a whole command -> what goes on in its place; None: itself."""

METHOD_AT = 7
"""Where the method begins in a frame: behind type, channel and size."""

_HEAD = Struct(">BHI")
_BEGINNING = Struct(">BHII")  # the same and a method's key, if it is one
_HEADER = Struct(">BHIHHQ")  # a content header's frame, up to the size of the body
_BASIC = 60  # the one class whose methods have content
_KINDS = frozenset((FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT))
_LEAST_METHOD = 4
_LEAST_HEADER = 14


def key_of(kind: type[Method]) -> int:
    """The number by which a judge knows a method."""
    return kind.class_id << 16 | kind.method_id


_WITH_CONTENT = frozenset(key for key, kind in METHODS.items() if kind.has_content)


def _end_of_content(data: bytes, at: int, size: int, channel: int) -> int:
    """Where the content that begins at `at` ends, if all of it is here and nothing comes between; else 0."""
    if size - at < _HEADER.size:
        return 0
    kind, number, length, _, _, left = _HEADER.unpack_from(data, at)
    if kind != FRAME_HEADER or number != channel or length < _LEAST_HEADER:
        return 0
    at += length + FRAME_OVERHEAD
    while left:
        if size - at < FRAME_OVERHEAD:
            return 0
        kind, number, length = _HEAD.unpack_from(data, at)
        if kind != FRAME_BODY or number != channel or length > left:
            return 0
        left -= length
        at += length + FRAME_OVERHEAD
    return at if at <= size else 0


def _decodes(payload: bytes) -> bool:
    """Whether a method makes sense, so that it is worth while to wait for its content."""
    try:
        decode_method(payload)
    except ConnectionFailure:
        return False
    return True


class _Part:
    """A command that is not whole yet."""

    __slots__ = ("key", "left", "pieces")

    def __init__(self, key: int, frame: bytes) -> None:
        self.key = key
        self.pieces = [frame]
        self.left = -1  # bytes of the body that are to come; -1: the header is

    def takes(self, kind: int, data: bytes, at: int, length: int) -> bool:
        """Whether a frame is what comes next here."""
        if kind == FRAME_HEADER and self.left < 0 and length >= _LEAST_HEADER:
            _, _, _, class_id, weight, self.left = _HEADER.unpack_from(data, at)
            return bool(class_id == _BASIC and not weight)
        if kind == FRAME_BODY and length <= self.left:
            self.left -= length
            return True
        return False


class Cutter:
    """See the module. `limit` is the largest payload of a frame, `most` the bytes of unfinished commands; 0: any."""

    def __init__(self, judge: Judge, *, limit: int = 0, most: int = 0) -> None:
        self.judge = judge
        self.most = most
        self.limit = limit
        self.lost = False
        """Everything is passed on as it is."""
        self._parts: dict[int, _Part] = {}
        self._held = 0
        self._chunks: list[bytes] = []  # the beginning of a frame
        self._waiting = 0
        self._need = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; what is to be passed on because of them."""
        if self.lost:
            return [data]
        if self._chunks:
            self._chunks.append(data)
            self._waiting += len(data)
            if self._waiting < self._need:
                return []
            data = b"".join(self._chunks)
            self._chunks.clear()
        out: list[bytes] = []
        self._keep(data, self._cut(data, out), out)
        return out

    def let_go(self) -> bytes:
        """Pass on everything as it is from now on; what was held until now."""
        self.lost = True
        held = [*(piece for part in self._parts.values() for piece in part.pieces), *self._chunks]
        self._parts.clear()
        self._chunks.clear()
        return b"".join(held)

    def _keep(self, data: bytes, pos: int, out: list[bytes]) -> None:
        """What could not be cut any more."""
        if self.lost:
            for part in self._parts.values():
                out += part.pieces
            self._parts.clear()
            out.append(data[pos:])
        elif pos < len(data):
            self._chunks.append(data[pos:])
            self._waiting = len(data) - pos

    def _cut(self, data: bytes, out: list[bytes]) -> int:
        """Pass on what is whole; where the rest begins."""
        judge, parts, limit, unpack = self.judge, self._parts, self.limit, _BEGINNING.unpack_from
        size, pos, passed = len(data), 0, 0
        while True:
            if size - pos < _HEAD.size:
                self._need = _HEAD.size
                break
            if size - pos >= _BEGINNING.size:
                kind, number, length, key = unpack(data, pos)
            else:
                kind, number, length = _HEAD.unpack_from(data, pos)
            end = pos + length + FRAME_OVERHEAD
            if (limit and length > limit) or kind not in _KINDS:
                self.lost = True
                break
            if end > size:
                self._need = end - pos
                break
            if kind == FRAME_METHOD:
                if length < _LEAST_METHOD or (parts and number in parts):
                    self.lost = True
                    break
                if key in _WITH_CONTENT and number:
                    whole = _end_of_content(data, end, size, number)
                    if not whole:
                        if not _decodes(data[pos + METHOD_AT : end - 1]):
                            self.lost = True
                            break
                        if pos > passed:
                            out.append(data[passed:pos])
                        self._begin(number, _Part(key, data[pos:end]))
                        pos = passed = end
                        continue
                    end = whole
                changed = judge(key, number, data, pos, end)
                limit = self.limit  # which that may have changed
                if changed is not None:
                    if pos > passed:
                        out.append(data[passed:pos])
                    if changed:
                        out.append(changed)
                    passed = end
                pos = end
            elif kind == FRAME_HEARTBEAT:
                pos = end
            else:
                part = parts.get(number)
                if part is None or not part.takes(kind, data, pos, length):
                    self.lost = True
                    break
                if pos > passed:
                    out.append(data[passed:pos])
                self._go_on(number, part, data[pos:end], out)
                pos = passed = end
            if self.lost:
                break
        if pos > passed:
            out.append(data if passed == 0 and pos == size else data[passed:pos])
        return pos

    def _begin(self, number: int, part: _Part) -> None:
        self._parts[number] = part
        self._hold(len(part.pieces[0]))

    def _hold(self, count: int) -> None:
        self._held += count
        if self.most and self._held > self.most:
            self.lost = True

    def _go_on(self, number: int, part: _Part, frame: bytes, out: list[bytes]) -> None:
        """One more frame of an unfinished command."""
        part.pieces.append(frame)
        if part.left:
            self._hold(len(frame))
            return
        del self._parts[number]
        command = b"".join(part.pieces)
        self._held -= len(command) - len(frame)
        changed = self.judge(part.key, number, command, 0, len(command))
        if changed is None:
            out.append(command)
        elif changed:
            out.append(changed)
