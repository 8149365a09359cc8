"""Messages made in advance are what would be made one by one."""

from __future__ import annotations

import pytest

from rabbitish.perf.payload import Payload, Stamping
from rabbitish.wire import methods
from rabbitish.wire.frames import CONTENT_HEAD, FRAME_BODY, FRAME_HEADER, FRAME_METHOD
from rabbitish.wire.properties import Properties, decode_properties
from tests.perf.support import frames

PUBLISH = methods.BasicPublish(exchange="e", routing_key="k", mandatory=True)
PLAIN = [Properties(delivery_mode=1)]


def messages(data: bytes) -> list[tuple[methods.Method, Properties, bytes]]:
    """Method, properties and body of each message in a batch."""
    found: list[tuple[methods.Method, Properties, bytes]] = []
    missing = 0
    for kind, channel, payload in frames(data):
        assert channel == 1
        if kind == FRAME_METHOD:
            assert missing == 0
            found.append((methods.decode_method(payload), Properties(), b""))
        elif kind == FRAME_HEADER:
            class_id, weight, missing = CONTENT_HEAD.unpack_from(payload)
            assert (class_id, weight) == (60, 0)
            found[-1] = (found[-1][0], decode_properties(payload[CONTENT_HEAD.size :]), b"")
        else:
            assert kind == FRAME_BODY
            missing -= len(payload)
            found[-1] = (*found[-1][:2], found[-1][2] + payload)
    assert missing == 0
    return found


@pytest.mark.parametrize("size", [12, 13, 1024, 4088, 4089, 10_000])
@pytest.mark.parametrize("count", [1, 3])
def test_a_batch(size: int, count: int) -> None:
    payload = Payload(1, PUBLISH, PLAIN, size, 4096)
    data = payload.batch(count, 0x1122334455667788)
    wanted = bytes(4) + bytes.fromhex("1122334455667788") + b"x" * (size - 12)
    assert messages(data) == [(PUBLISH, PLAIN[0], wanted)] * count
    assert len(data) == count * payload.message_bytes
    assert all(len(body) <= 4088 for kind, _, body in frames(data) if kind == FRAME_BODY)


@pytest.mark.parametrize("size", [0, 1, 11])
def test_without_room_for_a_stamp(size: int) -> None:
    payload = Payload(1, PUBLISH, PLAIN, size, 4096)
    data = payload.batch(2, 7)
    assert messages(data) == [(PUBLISH, PLAIN[0], b"x" * size)] * 2
    assert len(data) == 2 * payload.message_bytes


@pytest.mark.parametrize("size", [5, 20])
@pytest.mark.parametrize("batches", [[1, 1, 1, 1, 1], [2, 2, 2], [3, 3], [7, 1, 5], [4, 8]])
def test_properties_take_turns_across_batches(size: int, batches: list[int]) -> None:
    kinds = [Properties(priority=number) for number in range(3)]
    payload = Payload(1, PUBLISH, kinds, size, 4096)
    data = b"".join(payload.batch(count, 1) for count in batches)
    priorities = [properties.priority for _, properties, _ in messages(data)]
    assert priorities == [number % 3 for number in range(sum(batches))]


def test_stamps_in_nanoseconds() -> None:
    stamping = Stamping()
    assert stamping.at(123) == 123
    assert stamping.latency(100, 123) == 23


def test_stamps_in_wall_milliseconds() -> None:
    stamping = Stamping(1_000_000, 5_000_000_000)
    assert stamping.at(2_999_999) == 5002
    assert stamping.latency(5001, 4_000_000) == 3_000_000


def test_what_is_no_stamp() -> None:
    stamping = Stamping()
    assert stamping.latency(0, 100) is None
    assert stamping.latency(int.from_bytes(b"somebody"), 100) is None
    assert stamping.latency(101, 100) == -1, "another machine's clock may be a little ahead"
    assert stamping.latency(100 + 10**9, 100) is None
