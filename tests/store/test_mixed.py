"""Messages that came together, each with something of its own: one record, and nothing is lost or mixed up."""

from __future__ import annotations

from contextlib import nullcontext
from random import Random

import pytest

from rabbitish.core.message import Traits
from rabbitish.store.details import Decoder
from rabbitish.store.inspect import Entry, Wanted, inspect
from rabbitish.store.mixed import Mixed
from rabbitish.store.record import HEAD, Damage, Type, decode_all, encode
from rabbitish.tools.words import as_lines
from rabbitish.wire import methods
from tests.session.client import publication

from .wreck import Journaled, MemoryDisk, records, state_of

LONG = 10**9


def test_how_it_stands_in_a_record() -> None:
    mixed = Mixed.of(3, [b"abc", b"de"], [2, 1], [70, 2**33])
    raw = mixed.encode(b"route", 9)
    assert raw.hex() == (
        "00000005"
        "0000000000000009"
        "00000002"
        "03"
        "01" + b"route".hex() + "0000000300000002"
        "0000000200000001"
        "0000000000000046"
        "0000000200000000"
    )
    assert Mixed.decode(b"xx" + raw + b"abcde", 2) == (mixed, 2 + 18 + 5, 2 + len(raw))
    assert list(mixed.kinds()) == [(Traits(True, 3, 70), 2), (Traits(True, 3, 2**33), 1)]
    assert list(mixed.spans(10)) == [(10, 13), (13, 15)]
    assert (mixed.alike, mixed.part(1, 2).alike, mixed.part(1, 2)) == (False, True, Mixed.of(3, [b"de"], [1], [2**33]))
    plain = Mixed.of(0, [b"a", b"bc"], [1, 1], None)
    assert plain.alike
    assert Mixed.decode(plain.encode(b"", 0), 0)[0] == plain
    for missing in (1, 8):
        with pytest.raises(ValueError, match=r"bytes length|not all there"):
            Mixed.decode(raw[:-missing], 0)


def published(world: Journaled, *said: bytes) -> None:
    """Messages in one piece, which a publisher of the same kind came before."""
    client = world.client()
    client.declare("q", durable=True)
    client.ask(methods.ConfirmSelect())
    client.raw(publication("q", b"first", delivery_mode=2, message_id="x"))
    client.raw(b"".join(said))
    client.answers()


def unlike(random: Random, count: int, *, expires: bool) -> list[bytes]:
    said = []
    for number in range(count):
        own: dict[str, object] = {"message_id": str(random.randrange(10**6)), "headers": {"n": number}}
        if expires:
            own["expiration"] = str(LONG + random.randrange(10**6))
        body = b"%d " % number + b"x" * random.choice((1, 1, 50, 700))
        said.append(publication("q", body, delivery_mode=2, priority=2, **own))  # type: ignore[arg-type]
    return said


@pytest.mark.parametrize("expires", [False, True])
def test_they_are_one_record_and_come_back_after_a_restart(*, expires: bool) -> None:
    world = Journaled(MemoryDisk())
    published(world, *unlike(Random(1), 40, expires=expires))
    kinds = [one.record.span for one in records(world.disk, Type.PUBLISH_MIXED)]
    assert sum(kinds) >= 37 and len(kinds) == 1
    before = state_of(world.broker)
    assert len(before["/q"]) == 41
    assert state_of(Journaled(world.seal()).broker) == before


@pytest.mark.parametrize("expires", [False, True])
def test_those_that_live_stay_when_the_segment_is_written_anew(*, expires: bool) -> None:
    world = Journaled(MemoryDisk(), segment_bytes=4000)
    published(world, *unlike(Random(2), 40, expires=expires))
    client = world.client()
    for number in range(30):
        said = client.get("q", no_ack=False)
        assert said is not None
        if number % 3:
            client.send(methods.BasicAck(delivery_tag=said.method.delivery_tag))  # type: ignore[attr-defined]
    client.hang_up()
    world.settle()
    for _ in range(3):
        published(world, publication("q", b"y" * 4000, delivery_mode=2))
    world.settle()
    before = state_of(world.broker)
    world.compact(0, 1)
    mixed = records(world.disk, Type.PUBLISH_MIXED)
    assert len(mixed) > 5 and all(one.file.endswith("-1.log") for one in mixed)
    assert state_of(world.broker) == before
    assert state_of(Journaled(world.seal()).broker) == before


def test_columns_that_say_something_else_than_the_messages_are_damage() -> None:
    world = Journaled(MemoryDisk())
    published(world, *unlike(Random(3), 10, expires=True))
    (found,) = records(world.seal(), Type.PUBLISH_MIXED)
    data, decoder = found.raw, Decoder(world.codec)
    publish = decoder.publishes.head(data, HEAD.size, Type.PUBLISH_MIXED)
    mixed = publish.mixed
    assert mixed is not None and mixed.expirations is not None
    others = [
        mixed._replace(priority=1),
        mixed._replace(bodies=mixed.bodies[::-1]),
        mixed._replace(contents=mixed.contents[::-1]),
        mixed._replace(expirations=mixed.expirations[::-1]),
        mixed._replace(expirations=None),
    ]
    for good, each in [(True, mixed), *((False, other) for other in others)]:
        body = each.encode(publish.route.encode(), publish.now) + data[publish.contents :]
        written = b"".join(encode(9, 1, Type.PUBLISH_MIXED, body))
        (record,) = decode_all(written, 0)
        with nullcontext() if good else pytest.raises(Damage):
            decoder.check(written, record)


def test_what_a_look_into_the_journal_tells() -> None:
    world = Journaled(MemoryDisk())
    same = {"delivery_mode": 2, "content_type": "a/b"}
    published(
        world,
        publication("q", b"one", message_id="1", **same),
        publication("q", b"two", message_id="2", **same),
        publication("q", b"three", message_id="33", **same),
    )
    (entry,) = inspect(world.seal(), world.codec, Wanted(type=Type.PUBLISH_MIXED, bodies=True))
    assert isinstance(entry, Entry)
    about = entry.about
    assert (about["messages"], about["properties"], about["bodies"]) == (3, same, [b"one", b"two", b"three"])
    assert about["own_properties"] == [{"message_id": "1"}, {"message_id": "2"}, {"message_id": "33"}]
    assert about["body_bytes"] == [3, 3, 5]
    assert as_lines(entry)[0].split("bytes  ", 1)[1].startswith("3 messages of 3 to 5 bytes to ")
