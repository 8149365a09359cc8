"""Messages that need not survive are read back from the spill, however they lie across its files."""

from __future__ import annotations

from itertools import repeat

from rabbitish.core.message import Address, Message
from rabbitish.session.content import PropertyCache, WireCodec
from rabbitish.store.reader import PublishReader
from rabbitish.store.shelf import SpilledStretch
from rabbitish.store.spill import Spill
from rabbitish.wire.frames import content_frames
from rabbitish.wire.properties import Properties

from .lives import MemoryDisk

CODEC = WireCodec(PropertyCache(10))
ADDRESS = Address("", "q")


def alike(count: int, size: int) -> list[Message]:
    """Messages of one stamp."""
    contents = [content_frames(1, 60, Properties().encode(), b"%*d" % (size, n), 131_072) for n in range(count)]
    return CODEC.messages(repeat(CODEC.stamp(ADDRESS, 1, contents[0], 0)), contents, 0)


def bodies(messages: list[Message]) -> list[bytes]:
    return [message.body() for message in messages]  # type: ignore[attr-defined]


def test_a_page_over_several_files() -> None:
    disk, failures = MemoryDisk(), list[Exception]()
    spill = Spill(disk, CODEC, PublishReader(CODEC), segment_bytes=500, on_failure=failures.append)
    page = SpilledStretch(spill)
    messages = [message for size in (10, 200) for message in alike(20, size)]
    for message in messages:
        page.add(spill.write([message]), 1, message.size, None)
    assert len(disk.names()) > 4
    assert bodies(page.load()) == bodies(messages)
    page.let_go()
    assert len(disk.names()) == 1, "the one that is being written"
    spill.close()
    assert disk.names() == [] and not failures
