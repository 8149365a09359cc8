"""Journals that were written by earlier releases are read for ever: one in journals/ for each version of the format.

Each lies there with what a broker must make of it (`expected.json`). To add one when the format changes: run this
module with the release that wrote the last of the old format (`python -m tests.store.test_formats FOLDER`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rabbitish.store.record import VERSION, decode_segment_head, parse_segment_name
from rabbitish.values import Int64
from rabbitish.wire import methods
from tests.session.harness import START

from .driver import Durable, MessageState, state_of
from .fake_disk import Contents, FakeDisk

JOURNALS = Path(__file__).parent / "journals"
LONG = 30 * 24 * 3600 * 1000


def numbers(message: MessageState) -> tuple[str, str]:
    """When it expires, and how often it came back."""
    return str(message.deadline), str(message.returns)


def seen(world: Durable) -> dict[str, object]:
    """What must survive of a broker, as JSON knows it."""
    state = state_of(world.broker)
    return {
        "exchanges": sorted([*map(str, key), *map(str, value)] for key, value in state.exchanges.items() if key[1]),
        "bindings": sorted([str(part) for part in binding] for binding in state.bindings),
        "queues": {
            "".join(key): {
                "arguments": queue.arguments,
                "auto_delete": queue.auto_delete,
                "messages": [
                    [
                        message.body.decode(),
                        message.properties,
                        message.exchange,
                        *message.routing_keys,
                        *numbers(message),
                    ]
                    for message in queue.messages
                ],
            }
            for key, queue in state.queues.items()
        },
    }


@pytest.mark.parametrize("folder", sorted(JOURNALS.iterdir()), ids=lambda folder: folder.name)
def test_a_stored_journal_is_read(folder: Path) -> None:
    disk = FakeDisk()
    disk.files = {path.name: Contents(path.read_bytes()) for path in folder.iterdir() if path.suffix == ".log"}
    world = Durable(disk, now=START)
    assert seen(world) == json.loads((folder / "expected.json").read_text())


def test_there_is_one_of_this_format() -> None:
    segments = [path for path in (JOURNALS / str(VERSION)).iterdir() if parse_segment_name(path.name)]
    assert {decode_segment_head(path.read_bytes()).generation > 0 for path in segments} == {True, False}


def write(folder: Path) -> None:
    """Write a journal with everything in it that a journal may have: records of every type, segments written anew."""
    disk = FakeDisk()
    world = Durable(disk, segment_bytes=3000, window_bytes=1 << 40)
    client = world.client()
    client.ask(methods.ExchangeDeclare(exchange="e", type="topic", durable=True, auto_delete=True))
    client.ask(methods.ExchangeDeclare(exchange="gone", type="fanout", durable=True))
    client.declare("q", durable=True, arguments={"x-message-ttl": Int64(LONG), "x-max-priority": 3})
    client.declare("r", durable=True)
    client.declare("gone", durable=True)
    client.ask(methods.QueueBind(queue="q", exchange="e", routing_key="#"))
    client.ask(methods.QueueBind(queue="r", exchange="e", routing_key="a.*", arguments={"x": [1, None, "y"]}))
    client.ask(methods.QueueBind(queue="r", exchange="gone"))
    client.ask(methods.QueueUnbind(queue="r", exchange="gone"))
    client.ask(methods.ExchangeDelete(exchange="gone"))
    client.publish("gone", b"gone", delivery_mode=2)
    client.ask(methods.QueueDelete(queue="gone"))
    for number in range(40):
        client.publish("a.b", b"both %d" % number, exchange="e", delivery_mode=2, priority=number % 5)
        client.publish("r", *[b"alike %d %d" % (number, copy) for copy in range(5)], delivery_mode=2)
        client.publish("r", b"%d" % number, headers={"n": number}, expiration=str(LONG + number), delivery_mode=2)
    for number in range(150):
        got = client.get("r", no_ack=number % 50 != 7)
        assert got is not None
        if number % 50 == 7:
            assert isinstance(got.method, methods.BasicGetOk)
            client.send(methods.BasicNack(delivery_tag=got.method.delivery_tag, requeue=True))
    client.get("q", no_ack=False)  # and nothing becomes of it before the end
    world.settle()
    world.sync()
    world.compact()
    world.sync()
    world = Durable(disk.killed(), segment_bytes=3000, window_bytes=1 << 40)
    world.sync()
    folder.mkdir(parents=True)
    for name, contents in world.disk.files.items():
        if parse_segment_name(name):
            (folder / name).write_bytes(bytes(contents.synced + contents.unsynced))
    (folder / "expected.json").write_text(json.dumps(seen(world), indent=1) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
