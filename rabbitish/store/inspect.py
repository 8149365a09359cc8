"""What stands in a journal, record by record, with queues by their names.

Nothing is changed and nothing is held, so a running broker's journal may be read too; what it deletes or writes
meanwhile may then be missing. Reading stops at the first place that is damaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rabbitish.store.bodies import Bound, DeclaredExchange, DeclaredQueue, Named
from rabbitish.store.details import (
    UNREADABLE,
    Decoder,
    Details,
    Gone,
    Looker,
    Mark,
    OfQueue,
    Returned,
    Sent,
    unreadable,
)
from rabbitish.store.files import Disk
from rabbitish.store.reader import Publish
from rabbitish.store.record import SEGMENT_HEAD_BYTES, Damage, Record, Type, decode_all, segment_name
from rabbitish.store.resync import Place
from rabbitish.store.scan import that_count
from rabbitish.store.survey import Part, survey

_SNAPSHOT_READ_BYTES = 64 * 1024


class Wanted(NamedTuple):
    """Which records are to be told of."""

    queue: str | None = None
    """Those about a queue of this name."""
    type: Type | None = None
    first_lsn: int = 0
    limit: int | None = None
    """At most so many."""
    bodies: bool = False
    """With the bodies of messages."""


class Entry(NamedTuple):
    """One record."""

    file: str
    offset: int
    bytes: int
    lsn: int
    epoch: int
    type: Type
    about: dict[str, object]
    """What it says, by names that depend on its type; times are in milliseconds, bodies are bytes."""


def inspect(disk: Disk, codec: Looker, wanted: Wanted) -> Iterator[Entry | Place]:
    """The records in order; a `Place` comes last if reading stopped there. OSError: the disk cannot be read."""
    decoder, names = Decoder(codec), Names()
    names.learn_from_snapshots(disk, decoder)
    part: Part
    left = wanted.limit
    for event in survey(disk):
        if left is not None and left <= 0:
            return
        if isinstance(event, Part):
            part = event
        elif isinstance(event, Place):
            yield event
            return
        elif isinstance(event, Record):
            try:
                entry = _entry(part, event, decoder, names, wanted)
            except Damage as damage:
                yield Place(part.file, event.start, event.end, damage.reason)
                return
            if entry is not None:
                if left is not None:
                    left -= 1
                yield entry


def _entry(part: Part, record: Record, decoder: Decoder, names: Names, wanted: Wanted) -> Entry | None:
    """The record, if it is wanted."""
    others = wanted.type not in (None, record.type) or record.lsn + record.span <= wanted.first_lsn
    if others and record.type is not Type.QUEUE_NEW:
        return None
    details = decoder.details(part.data, record)
    names.learn(details)
    if others or (wanted.queue is not None and wanted.queue not in names.of(details)):
        return None
    about = describe(details, names)
    if isinstance(details, Publish):
        try:
            about.update(_inside(part.data, details, decoder, record.lsn if wanted.bodies else 0))
        except UNREADABLE as error:
            raise unreadable(record, error) from error
    return Entry(part.file, record.start, record.end - record.start, record.lsn, record.epoch, record.type, about)


def _inside(data: bytes, publish: Publish, decoder: Decoder, lsn: int) -> dict[str, object]:
    """What is inside messages of one record; their bodies if the first one's number is given.

    `properties` are those that all have. Where that is not all, `own_properties` are the others, message by message.
    """
    messages = decoder.publishes.messages(data, publish, 0, publish.length, lsn)
    sizes = [message.size for message in messages]
    each = [decoder.codec.properties_of(message) for message in messages]
    common = {name: value for name, value in each[0].items() if all(name in one and one[name] == value for one in each)}
    own = [{name: value for name, value in one.items() if name not in common} for one in each]
    inside: dict[str, object] = {"body_bytes": sizes[0], "properties": common}
    if any(size != sizes[0] for size in sizes):
        inside["body_bytes"] = sizes
    if any(own):
        inside["own_properties"] = own
    if lsn:
        inside["bodies"] = [decoder.codec.body_of(message) for message in messages]
    return inside


class Names:
    """Queues by their numbers."""

    def __init__(self) -> None:
        self._known: dict[int, DeclaredQueue] = {}

    def learn(self, details: Details) -> None:
        """See whether a queue is declared here. Numbers are never used again."""
        if isinstance(details, DeclaredQueue):
            self._known[details.number] = details

    def learn_from_snapshots(self, disk: Disk, decoder: Decoder) -> None:
        """Learn from the beginning of each segment, as far as that can be read; those written anew have none."""
        for name in that_count(disk.names())[0]:
            if not name.generation:
                file = segment_name(*name)
                for data, record in _snapshot(disk, file):
                    if record.type is Type.QUEUE_NEW:
                        try:
                            self.learn(decoder.details(data, record))
                        except Damage:  # it is told of in its turn
                            continue
                disk.forget(file)

    def __getitem__(self, number: int) -> Mapping[str, object]:
        """Number, and as far as they are known vhost and name."""
        queue = self._known.get(number)
        return {"number": number} if queue is None else {"number": number, "vhost": queue.vhost, "name": queue.name}

    def of(self, details: Details) -> list[str]:
        """The names of the queues that a record is about."""
        if isinstance(details, DeclaredQueue):
            return [details.name]
        if isinstance(details, Bound):
            return [] if details.to_exchange else [details.destination]
        numbers: tuple[int, ...] = ()
        if isinstance(details, Publish):
            numbers = details.route.queues
        elif isinstance(details, OfQueue | Returned):
            numbers = (details.queue,)
        elif isinstance(details, Gone):
            numbers = (details.number,)
        return [self._known[number].name for number in numbers if number in self._known]


def _snapshot(disk: Disk, file: str) -> Iterator[tuple[bytes, Record]]:
    """The records up to the end of the snapshot that a segment begins with."""
    size, seen = _SNAPSHOT_READ_BYTES, 0
    while True:
        try:
            data = disk.read_at(file, 0, size)
            for index, record in enumerate(decode_all(data, SEGMENT_HEAD_BYTES)):
                if record.type is Type.SNAPSHOT_END:
                    return
                if index >= seen:
                    yield data, record
                    seen = index + 1
            if len(data) < size:
                return
        except Damage as damage:
            if len(data) < size or not damage.reason.startswith("the file ends"):
                return
        except OSError:
            return
        size *= 2


def describe(details: Details, names: Names) -> dict[str, object]:
    """What a record says, by names; times are in milliseconds."""
    if isinstance(details, Publish):
        address = details.route.address
        return {
            "time_ms": details.now,
            "exchange": address.exchange,
            "routing_key": address.routing_key,
            "extra_routing_keys": list(address.extra_keys),
            "queues": [names[number] for number in details.route.queues],
            "messages": details.length,
        }
    if isinstance(details, OfQueue):
        about: dict[str, object] = {"queue": names[details.queue], "messages": details.messages}
        if details.reason:
            about["reason"] = details.reason
        ranges = details.ranges
        return {**about, "ranges": [list(pair) for pair in zip(ranges[::2], ranges[1::2], strict=True)]}
    if isinstance(details, Returned):
        return {"queue": names[details.queue], "message": details.message, "returns": details.returns}
    if isinstance(details, Sent):
        publishes = [list(each) for each in details.ranges]
        return {"session": details.session.hex(), "channel": details.channel, "publishes": publishes}
    return _describe_declaration(details, names)


def _describe_declaration(details: Details, names: Names) -> dict[str, object]:
    if isinstance(details, DeclaredQueue):
        queue = {"number": details.number, "vhost": details.vhost, "name": details.name}
        about = {"queue": queue, "auto_delete": details.auto_delete, "arguments": details.arguments}
        return {**about, "ttls": details.ttls} if details.ttls else about
    if isinstance(details, Gone):
        return {"queue": names[details.number]}
    if isinstance(details, DeclaredExchange):
        about = details._asdict()
        return {"vhost": about.pop("vhost"), "exchange": about.pop("name"), "kind": about.pop("type"), **about}
    if isinstance(details, Bound):
        about = details._asdict()
        about["destination_type"] = "exchange" if about.pop("to_exchange") else "queue"
        return about
    if isinstance(details, Named):
        return {"vhost": details.vhost, **({"exchange": details.name} if details.name else {})}
    if isinstance(details, Mark):
        return {"durable_lsn": details.durable_lsn}
    return {}
