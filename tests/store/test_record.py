"""Records as bytes: they come back as they went, and no damage to them goes unnoticed."""

from __future__ import annotations

import zlib
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitish.store.record import (
    HEAD,
    SEGMENT_HEAD_BYTES,
    VERSION,
    Damage,
    Record,
    Type,
    decode_all,
    decode_segment_head,
    encode,
    encode_segment_head,
    segment_name,
    segment_sequence,
)
from tests.session.harness import examples

contents = st.tuples(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.sampled_from(Type),
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
    assert [record[:4] for record in found] == [
        (lsn, epoch, kind, b"".join(body)) for lsn, epoch, kind, body in records
    ]
    ends = [record.end for record in found]
    assert ends == sorted(ends) and (not ends or ends[-1] == len(data))


RECORDS = [(7, 1, Type.MARK, [b"12345678"]), (8, 1, Type.PUBLISH, [b"head", b"body"]), (9, 3, Type.SNAPSHOT, [])]


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
        assert [record.lsn for record in found] == [7, 8, 9][:number]
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
    assert str(damage) == f"unknown record type 200 at offset {HEAD.size + 8}"


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
        "PUBLISH": 20,
        "REMOVE": 21,
        "RETURNED": 22,
    }
    assert b"".join(encode(1, 2, Type.REMOVE, b"x")).hex() == "00000001f5435367000000000000000100000002150078"


# ---- segment heads


def test_segment_heads_come_back() -> None:
    head = encode_segment_head(3, 2**40)
    assert len(head) == SEGMENT_HEAD_BYTES
    assert decode_segment_head(head + b"more") == (VERSION, 3, 2**40)


def test_any_flipped_bit_in_a_segment_head_is_noticed() -> None:
    head = encode_segment_head(3, 4)
    for bit in range(8 * len(head)):
        broken = bytearray(head)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damage):
            decode_segment_head(bytes(broken))


@pytest.mark.parametrize("size", range(SEGMENT_HEAD_BYTES))
def test_a_cut_segment_head(size: int) -> None:
    with pytest.raises(Damage, match=r"^the file ends within the segment's head at offset 0$"):
        decode_segment_head(encode_segment_head(3, 4)[:size])


def test_other_files_and_versions_are_told_apart() -> None:
    head = encode_segment_head(3, 4)
    with pytest.raises(Damage, match=r"^not a segment of a journal at offset 0$"):
        decode_segment_head(b"%PDF-1.7" + head[8:])
    with pytest.raises(Damage, match=r"^format version 2; this is a reader of version 1 at offset 0$"):
        decode_segment_head(head[:8] + b"\x00\x02" + head[10:])


def test_names() -> None:
    assert segment_name(12) == "journal-000000000012.log"
    assert sorted(map(segment_name, (2, 10, 1))) == [segment_name(number) for number in (1, 2, 10)]
    assert segment_sequence(segment_name(12)) == 12
    assert [segment_sequence(name) for name in ("lock", "journal-.log", "journal-x1.log", "journal-1.log~")] == [
        None
    ] * 4
