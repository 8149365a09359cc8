"""A shelf over a journal and a spill without a broker, messages to put on it, and what a message is in every detail."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import NamedTuple

from rabbitish.core.message import Address, Message
from rabbitish.core.paging import NEVER, Page
from rabbitish.session.content import PropertyCache, WireCodec, WireMessage, framed_content
from rabbitish.store.bodies import Route
from rabbitish.store.reader import PublishReader, Reader
from rabbitish.store.shelf import JournalShelf
from rabbitish.store.spill import Spill
from rabbitish.wire.properties import Properties
from tests.wire.helpers import exact

from .fake_disk import FakeDisk
from .made import journal_on

PERSISTENT, TRANSIENT = 2, 1
ADDRESS = Address("e", "key", ("copy",))


class Seen(NamedTuple):
    """Everything that a message is."""

    body: bytes
    content: bytes
    properties: str
    exchange: str
    keys: tuple[str, ...]
    traits: tuple[object, ...]
    size: int
    lsn: int
    deadline: int | None


def seen(message: Message, *, numbered: bool = True) -> Seen:
    assert isinstance(message, WireMessage)
    return Seen(
        message.body(),
        message.content,
        repr(message.properties()) + repr(exact(message.headers())),
        message.address.exchange,
        message.address.routing_keys,
        tuple(message.traits),
        message.size,
        message.lsn if numbered else 0,
        message.deadline,
    )


class Bench:
    """A shelf, and messages to put on it."""

    def __init__(self, segment_bytes: int = 1 << 20, disk: FakeDisk | None = None) -> None:
        self.disk = disk or FakeDisk()
        self.codec = WireCodec(PropertyCache(100))
        self.failures: list[Exception] = []
        self.journal = journal_on(self.disk, segment_bytes=segment_bytes)
        self.publishes = PublishReader(self.codec)
        self.reader = Reader(self.disk, self.journal.segments, self.publishes, self.failures.append)
        self.spill = Spill(
            self.disk, self.codec, self.publishes, segment_bytes=segment_bytes, on_failure=self.failures.append
        )
        self.shelf = JournalShelf(self.journal, self.reader, self.spill)

    def read_afresh(self) -> None:
        """Forget what was read before."""
        self.reader = Reader(self.disk, self.journal.segments, self.publishes, self.failures.append)

    def alike(
        self,
        *bodies: bytes,
        address: Address = ADDRESS,
        deadline: int | None = None,
        mode: int = PERSISTENT,
        frame_max: int = 131_072,
        **named: object,
    ) -> list[WireMessage]:
        """Messages of one stamp, which have no numbers yet."""
        assert len(set(map(len, bodies))) == 1
        raw = Properties(delivery_mode=mode, **named).encode()  # type: ignore[arg-type]
        contents = [framed_content(3, raw, len(body), [body], frame_max) for body in bodies]
        messages = self.codec.messages(repeat(self.codec.stamp(address, 3, contents[0], 0)), contents, 0)
        for message in messages:
            message.deadline = deadline
        return messages  # type: ignore[return-value]

    def journaled(self, *bodies: bytes, **how: object) -> list[WireMessage]:
        """Messages that are in the journal, in one record."""
        messages = self.alike(*bodies, **how)  # type: ignore[arg-type]
        first = messages[0]
        route = Route(self.codec.channel_of(first), (1,), first.address).encode()
        lsn = self.journal.publish(route, (1,), 5, self.codec.contents_of(messages), first.size)
        for number, message in enumerate(messages, lsn):
            message.lsn = number
        return messages

    def spills(self) -> list[str]:
        """The files of the spill."""
        return sorted(name for name in self.disk.names() if name.startswith("spill-"))


def loaded(pages: Iterable[Page]) -> list[Seen]:
    """What is in pages, whose own figures must say the same."""
    found: list[Seen] = []
    for page in pages:
        messages = page.load()
        assert (page.count, page.bytes) == (len(messages), sum(message.size for message in messages))
        deadlines = [NEVER if message.deadline is None else message.deadline for message in messages]
        assert (page.earliest, page.latest) == (min(deadlines), max(deadlines))
        assert page.ordered is (deadlines == sorted(deadlines))
        numbers = [lsn for first, count in ranges(page) for lsn in range(first, first + count)]
        assert numbers == [message.lsn for message in messages if message.lsn]
        found += map(seen, messages)
    return found


def ranges(page: Page) -> list[tuple[int, int]]:
    """A page's numbers."""
    return list(zip(page.ranges[::2], page.ranges[1::2], strict=True))
