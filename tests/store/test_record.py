"""Records as bytes: they come back as they went, and no damage to them goes unnoticed."""

from __future__ import annotations

import zlib
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitish.store.record import (
    HEAD,
    MARK_MAGIC,
    PUBLISH_HEAD,
    PUBLISHES,
    SEGMENT_HEAD_BYTES,
    Damage,
    Record,
    SegmentHead,
    SegmentName,
    Type,
    decode_all,
    decode_mark,
    decode_segment_head,
    encode,
    encode_mark,
    encode_segment_head,
    parse_segment_name,
    segment_name,
)
from tests.session.harness import examples

u64 = st.integers(0, 2**64 - 1)
contents = st.tuples(
    u64,
    st.integers(0, 2**32 - 1),
    st.sampled_from(sorted(set(Type) - set(PUBLISHES))),
    st.lists(st.binary(max_size=40), max_size=3),
)


def joined(records: list[tuple[int, int, Type, list[bytes]]]) -> bytes:
    return b"".join(b"".join(encode(lsn, epoch, kind, *body)) for lsn, epoch, kind, body in records)


def read(data: bytes, offset: int = 0) -> tuple[list[Record], Damage | None]:
    """The records up to the first damage, and that."""
    records: list[Record] = []
    try:
        records.extend(decode_all(data, offset))
    except Damage as damage:
        return records, damage
    return records, None


@given(st.lists(contents, max_size=5), st.binary(max_size=9))
@examples(100)
def test_records_come_back(records: list[tuple[int, int, Type, list[bytes]]], before: bytes) -> None:
    data = before + joined(records)
    found, damage = read(data, len(before))
    assert damage is None
    assert [(record.lsn, record.epoch, record.type, data[record.body : record.end]) for record in found] == [
        (lsn, epoch, kind, b"".join(body)) for lsn, epoch, kind, body in records
    ]
    ends = [len(before), *[record.end for record in found]]
    assert ends[-1] == len(data)
    assert [record.start for record in found] == ends[:-1]
    assert all((record.body - record.start, record.span) == (HEAD.size, 1) for record in found)


PUBLISH = PUBLISH_HEAD.pack(5, 1, 3, 2)
RECORDS = [
    (7, 1, Type.MARK, [encode_mark(5)]),
    (8, 1, Type.PUBLISH, [PUBLISH, b"route", b"aabbcc"]),
    (11, 3, Type.SNAPSHOT, []),
]


def test_a_publish_takes_a_number_a_message() -> None:
    found, damage = read(joined(RECORDS))
    assert damage is None
    assert [(record.lsn, record.span) for record in found] == [(7, 1), (8, 3), (11, 1)]


@given(u64)
@examples(20)
def test_marks(lsn: int) -> None:
    assert decode_mark(b"before" + encode_mark(lsn), 6) == lsn
    assert encode_mark(lsn).startswith(MARK_MAGIC)


def test_any_flipped_bit_is_noticed_at_its_record() -> None:
    whole = joined(RECORDS)
    ends = [record.end for record in read(whole)[0]]
    starts = [0, *ends[:-1]]
    for bit in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        number = sum(1 for end in ends if end <= bit // 8)
        found, damage = read(bytes(broken))
        assert damage is not None and damage.offset == starts[number], f"bit {bit}"
        assert [record.lsn for record in found] == [7, 8, 11][:number]
        assert damage.torn


def test_a_cut_anywhere_is_noticed() -> None:
    whole = joined(RECORDS)
    ends = [0, *[record.end for record in read(whole)[0]]]
    for size in range(len(whole)):
        found, damage = read(whole[:size])
        kept = max(end for end in ends if end <= size)
        assert (found[-1].end if found else 0) == kept
        if size == kept:
            assert damage is None
        else:
            assert damage is not None and damage.offset == kept and "ends within" in damage.reason


def test_a_length_beyond_all_reason_is_damage() -> None:
    data = pack(">I", 0xFFFFFFFF) + joined(RECORDS)[4:]
    assert str(read(data)[1]) == "the file ends within a record at offset 0"


def test_a_type_that_is_not_known_was_not_torn() -> None:
    checked = pack(">QIBB", 5, 1, 200, 0)
    data = pack(">II", 0, zlib.crc32(checked)) + checked
    found, damage = read(joined(RECORDS[:1]) + data)
    assert len(found) == 1
    assert damage is not None and not damage.torn
    assert str(damage) == f"unknown record type 200 at offset {HEAD.size + 16}"


def test_numbers_of_types_stay() -> None:
    assert {kind.name: int(kind) for kind in Type} == {
        "MARK": 1,
        "EPOCH": 2,
        "SNAPSHOT": 3,
        "SNAPSHOT_END": 4,
        "VHOST_NEW": 10,
        "VHOST_GONE": 11,
        "EXCHANGE_NEW": 12,
        "EXCHANGE_GONE": 13,
        "QUEUE_NEW": 14,
        "QUEUE_GONE": 15,
        "BOUND": 16,
        "UNBOUND": 17,
        "ACCESS": 18,
        "PUBLISH": 20,
        "REMOVE": 21,
        "RETURNED": 22,
        "DELIVERED": 23,
        "PUBLISH_MIXED": 24,
        "SENT": 25,
    }
    assert b"".join(encode(1, 2, Type.REMOVE, b"x")).hex() == "00000001f5435367000000000000000100000002150078"


# ---- segment heads


segment_heads = st.builds(SegmentHead, u64, u64, st.integers(0, 2**32 - 1), u64, u64)


@given(segment_heads)
@examples(50)
def test_segment_heads_come_back(head: SegmentHead) -> None:
    data = encode_segment_head(head)
    assert len(data) == SEGMENT_HEAD_BYTES
    assert decode_segment_head(data + b"more") == head


def test_a_segment_head_as_it_is_for_ever() -> None:
    data = encode_segment_head(SegmentHead(3, 5, 1, 400, 900))
    assert data[:10] == b"RABBTISH\x00\x02"
    assert data[10:-4] == pack(">QQIQQ", 3, 5, 1, 400, 900)
    assert data[-4:] == pack(">I", zlib.crc32(data[:-4]))


HEAD_BYTES = encode_segment_head(SegmentHead(3, 3, 0, 4, 0))


def test_any_flipped_bit_in_a_segment_head_is_noticed() -> None:
    head = HEAD_BYTES
    for bit in range(8 * len(head)):
        broken = bytearray(head)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damage):
            decode_segment_head(bytes(broken))


@pytest.mark.parametrize("size", range(SEGMENT_HEAD_BYTES))
def test_a_cut_segment_head(size: int) -> None:
    with pytest.raises(Damage, match=r"^the file ends within the segment's head at offset 0$"):
        decode_segment_head(HEAD_BYTES[:size])


def test_other_files_and_versions_are_told_apart() -> None:
    head = HEAD_BYTES
    with pytest.raises(Damage, match=r"^not a segment of a journal at offset 0$") as raised:
        decode_segment_head(b"%PDF-1.7" + head[8:])
    assert raised.value.torn
    for size in (10, len(head)):
        for version in (1, 3):
            with pytest.raises(
                Damage, match=rf"^format version {version}; this is a reader of version 2 at offset 0$"
            ) as raised:
                decode_segment_head((head[:8] + pack(">H", version) + head[10:])[:size])
            assert not raised.value.torn


def test_names() -> None:
    assert segment_name(12) == SegmentHead(12, 12, 0, 1, 0).name == "journal-000000000012.log"
    compacted = SegmentHead(12, 15, 3, 1, 9).name
    assert segment_name(12, 15, 3) == compacted == "journal-000000000012-000000000015-3.log"
    assert sorted(map(segment_name, (2, 10, 1))) == [segment_name(number) for number in (1, 2, 10)]
    assert parse_segment_name(segment_name(12)) == SegmentName(12, 12, 0)
    assert parse_segment_name(compacted) == SegmentName(12, 15, 3)
    for name in (segment_name(12), compacted):
        assert segment_name(*(parse_segment_name(name) or (0,))) == name


@pytest.mark.parametrize(
    "name",
    [
        "lock",
        "node.json",
        "journal-.log",
        "journal-x00000000001.log",
        "journal-1.log",
        "journal-000000000001.log~",
        "journal-000000000001.log.new",
        "journal-000000000001-000000000002.log",
        "spill-000000000001.tmp",
    ],
)
def test_names_of_other_files(name: str) -> None:
    assert parse_segment_name(name) is None
