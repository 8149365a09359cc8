"""The commands `rabbitish journal ...`: what they print, their exit codes, and that they keep off a running broker."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner, Result
from store.wreck import Found, Journaled, MemoryDisk, flip_some, grown, hit, records

from rabbitish.cli import main
from rabbitish.store.files import RealDisk
from rabbitish.store.record import Type
from rabbitish.wire import methods

REPOSITORY = Path(__file__).parents[1]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["journal", *map(str, arguments)])


def lines(*arguments: object) -> list[str]:
    """What is printed when all is well."""
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout.splitlines()


def written(disk: MemoryDisk, path: Path) -> Path:
    """The journal as files."""
    path.mkdir(exist_ok=True)
    for name, data in disk.files.items():
        (path / name).write_bytes(data)
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != "lock"}


@pytest.fixture(scope="module")
def sound() -> MemoryDisk:
    return grown(5)


@pytest.fixture
def data(sound: MemoryDisk, tmp_path: Path) -> Path:
    """The data directory of a sound journal."""
    return written(sound, tmp_path / "data")


def damaged(sound: MemoryDisk, path: Path, *kinds: Type) -> tuple[Path, list[Found]]:
    """A data directory in which a record of each of these types is damaged, and those."""
    disk = sound.copy()
    last = disk.segments()[-1]
    found = [next(one for one in records(disk, kind) if one.file != last) for kind in kinds]
    hit(disk, *found)
    return written(disk, path), found


def world() -> Journaled:
    """A journal in one segment with a queue."""
    world = Journaled(MemoryDisk(), segment_bytes=1 << 20)
    world.client().declare("q", durable=True)
    return world


# --- Verify -----------------------------------------------------------------------------------------------------------


def test_verify_a_sound_journal(sound: MemoryDisk, data: Path) -> None:
    before = contents(data)
    *segments, summary = lines("verify", data)
    assert [line.partition(":")[0] for line in segments] == sound.segments()
    first = sound.segments()[0]
    count = sum(one.file == first for one in records(sound))
    assert f"{len(sound.files[first]):,} bytes, {count} records" in segments[0]
    assert summary.startswith("sound: 5 queues, 117 messages")
    assert contents(data) == before


def test_verify_a_damaged_journal(sound: MemoryDisk, tmp_path: Path) -> None:
    path, found = damaged(sound, tmp_path / "data", Type.PUBLISH, Type.REMOVE)
    before = contents(path)
    result = run("verify", path)
    assert (result.exit_code, result.stderr) == (1, "")
    told = [line for line in result.stdout.splitlines() if line.startswith("damaged: ")]
    assert told == [
        f"damaged: {one.file}, bytes {one.record.start} to {one.record.end}: checksum does not match" for one in found
    ]
    assert result.stdout.splitlines()[-1].startswith("damaged in 2 places: ")
    assert contents(path) == before


def test_verify_a_torn_tail(sound: MemoryDisk, tmp_path: Path) -> None:
    disk = sound.copy()
    last = disk.segments()[-1]
    disk.truncate(last, len(disk.files[last]) - 1)
    told = lines("verify", written(disk, tmp_path / "data"))
    assert any(line.startswith(f"torn tail: {last}, bytes ") for line in told)
    assert told[-1].startswith("sound: ")


def test_verify_tells_what_may_be_worth_knowing(sound: MemoryDisk, tmp_path: Path) -> None:
    disk = sound.copy()
    disk.create("journal-000000000001.log.new")
    assert "note: not needed any more" in "\n".join(lines("verify", written(disk, tmp_path / "data")))


# --- Inspect ----------------------------------------------------------------------------------------------------------


def test_inspect_prints_a_line_a_record(sound: MemoryDisk, data: Path) -> None:
    told = lines("inspect", data)
    assert [line for line in told if line.startswith("journal-")] == sound.segments()
    assert [int(line.split()[0]) for line in told if line[0] == " "] == [one.record.lsn for one in records(sound)]
    assert not (data / "lock").exists()


def scripted() -> MemoryDisk:
    """What people are told in words."""
    journaled = world()
    client = journaled.client()
    client.declare("with arguments", durable=True, arguments={"x-max-length": 5, "raw": b"\xff"})
    client.ask(methods.ExchangeDeclare(exchange="e", type="topic", durable=True, auto_delete=True))
    client.ask(methods.QueueBind(queue="q", exchange="e", routing_key="#"))
    client.publish("k", b"text", exchange="e", delivery_mode=2)
    client.publish("q", b"\xff", delivery_mode=2)
    client.publish("q", b"\x1b[31m\nforged", delivery_mode=2)
    client.get("q", no_ack=False)
    client.hang_up()
    journaled.settle()
    client = journaled.client()
    client.get("q", no_ack=False)
    client.send(methods.BasicNack(delivery_tag=1, requeue=True))
    client.ask(methods.QueuePurge(queue="q"))
    client.ask(methods.QueueDelete(queue="q"))
    client.ask(methods.ExchangeDelete(exchange="e"))
    return journaled.disk


def test_inspect_in_words(tmp_path: Path) -> None:
    disk = scripted()
    told = "\n".join(lines("inspect", written(disk, tmp_path / "data")))
    first, *_ = (one.record.lsn for one in records(disk, Type.PUBLISH))
    for words in (
        "vhost /",
        "queue q\n",
        'queue "with arguments", arguments {"x-max-length": 5, "raw": {"base64": "/w=="}}',
        "exchange e (topic), auto-delete",
        "queue q to exchange e, routing key #",
        "1 message of 4 bytes to q; exchange e, routing key k; 2023-11-14T22:13:20.000Z",
        'exchange "", routing key q',
        f"message of q: {first}\n",
        f"message {first} to q, 1 time by now",
        f"3 messages of q, purged: {first}-{first + 2}",
        "on disk up to ",
    ):
        assert words in told, words


def test_inspect_with_bodies_that_cannot_reach_the_terminal(tmp_path: Path) -> None:
    path = written(scripted(), tmp_path / "data")
    told = [line for line in lines("inspect", "--bodies", path) if line[14:18] == "body"]
    assert [line.split("body", 1)[1].strip() for line in told] == ["text", "base64:/w==", '"\\x1b[31m\\nforged"']
    assert not [line for line in lines("inspect", path) if line[14:18] == "body"]


def test_inspect_as_json(sound: MemoryDisk, data: Path) -> None:
    told = [json.loads(line) for line in lines("inspect", "--json", data)]
    assert [(one["lsn"], one["file"], one["offset"], one["bytes"]) for one in told] == [
        (one.record.lsn, one.file, one.record.start, len(one.raw)) for one in records(sound)
    ]
    published = [one for one in told if one["type"] == "publish"]
    assert published
    for one in published:
        assert one["properties"]["content_type"] == "text/plain"
        assert {"exchange", "routing_key", "queues", "messages", "body_bytes", "time_ms", "time"} <= one.keys()
        assert "bodies" not in one
    assert {one["type"] for one in told} >= {"mark", "snapshot", "snapshot-end", "queue-new", "bound", "remove"}


def test_inspect_as_json_with_bodies(tmp_path: Path) -> None:
    path = written(scripted(), tmp_path / "data")
    told = [json.loads(line) for line in lines("inspect", "--json", "--bodies", path)]
    assert [body for one in told for body in one.get("bodies", [])] == [
        {"text": "text"},
        {"base64": base64.b64encode(b"\xff").decode()},
        {"text": "\x1b[31m\nforged"},
    ]
    (arguments,) = [one["arguments"] for one in told if one["type"] == "queue-new" and one["arguments"]]
    assert arguments == {"x-max-length": 5, "raw": {"base64": "/w=="}}


def test_inspect_what_is_wanted(sound: MemoryDisk, data: Path) -> None:
    every = [json.loads(line) for line in lines("inspect", "--json", data)]

    def wanted(*options: object) -> list[dict[str, object]]:
        return [json.loads(line) for line in lines("inspect", "--json", *options, data)]

    assert wanted("--limit", 3) == every[:3]
    assert wanted("--from", every[20]["lsn"]) == every[20:]
    assert wanted("--type", "publish") == [one for one in every if one["type"] == "publish"]
    assert wanted("--type", "SNAPSHOT_END") == [one for one in every if one["type"] == "snapshot-end"]
    levels = wanted("--queue", "levels", "--type", "remove")
    assert levels == [one for one in every if one["type"] == "remove" and one["queue"]["name"] == "levels"]
    assert levels


def test_inspect_refuses_a_type_that_there_is_not(data: Path) -> None:
    result = run("inspect", "--type", "message", data)
    assert result.exit_code == 2
    assert "'message' is none of mark, epoch," in result.stderr


def test_inspect_stops_at_damage(sound: MemoryDisk, tmp_path: Path) -> None:
    path, (one,) = damaged(sound, tmp_path / "data", Type.REMOVE)
    result = run("inspect", "--json", path)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"rabbitish: stopped at damage: {one.file}, bytes {one.record.start} to ")
    assert result.stderr.count("\n") == 1
    told = [json.loads(line)["lsn"] for line in result.stdout.splitlines()]
    assert told == [other.record.lsn for other in records(sound) if other.record.lsn < one.record.lsn]


def test_inspect_a_torn_tail(sound: MemoryDisk, tmp_path: Path) -> None:
    disk = sound.copy()
    last = disk.segments()[-1]
    disk.truncate(last, len(disk.files[last]) - 1)
    result = run("inspect", written(disk, tmp_path / "data"))
    assert result.exit_code == 0
    assert result.stderr.startswith(f"rabbitish: a torn tail: {last}, bytes ")


# --- Salvage ----------------------------------------------------------------------------------------------------------


def test_salvage_a_sound_journal(data: Path, tmp_path: Path) -> None:
    before = contents(data)
    told = lines("salvage", data, tmp_path / "new")
    assert told == [
        "nothing is lost",
        f"{tmp_path / 'new'}: 5 queues, 117 messages in them; it was read back, and is sound",
    ]
    assert contents(data) == before
    assert lines("verify", tmp_path / "new")[-1].startswith("sound: 5 queues, 117 messages")


def test_salvage_tells_what_is_lost(tmp_path: Path) -> None:
    journaled = world()
    client = journaled.client()
    client.publish("q", b"1", delivery_mode=2)
    client.publish("q", b"2", delivery_mode=2)
    client.declare("late", durable=True)
    client.get("q")
    disk = journaled.seal()
    _, second = records(disk, Type.PUBLISH)
    (removed,) = records(disk, Type.REMOVE)
    hit(disk, second, removed)
    told = lines("salvage", written(disk, tmp_path / "data"), tmp_path / "new")
    assert told == [
        f"{second.file}, bytes {second.record.start} to {second.record.end}: checksum does not match; it reads like "
        'publish 1 message to q; exchange "", routing key q; 2023-11-14T22:13:20.000Z',
        f"  lost from record {second.record.lsn} to {second.record.lsn}: at least 0 and at most 1 message",
        "  queues that can be affected: q",
        f"{removed.file}, bytes {removed.record.start} to {removed.record.end}: checksum does not match; it reads like "
        + told[3].rpartition("reads like ")[2],
        f"  lost from record {removed.record.lsn} to {removed.record.lsn}: no messages",
        "  queues that can be affected: q, late",
        "  removals may be lost: messages that had left their queues may be back",
        "so many messages at most may be back that had left their queues: 1 of q",
        f"{tmp_path / 'new'}: 2 queues, 1 message in them; it was read back, and is sound",
    ]
    assert told[3].rpartition("reads like ")[2].startswith("remove ")


def test_salvage_tells_what_was_made_up_and_left_out(tmp_path: Path) -> None:
    journaled = world()
    client = journaled.client()
    client.declare("other", durable=True)
    client.ask(methods.QueueBind(queue="other", exchange="amq.topic", routing_key="#"))
    client.publish("q", b"1", delivery_mode=2)
    client.publish("x", b"2", exchange="amq.topic", delivery_mode=2)
    disk = journaled.seal()
    hit(disk, *records(disk, Type.QUEUE_NEW))
    told = lines("salvage", written(disk, tmp_path / "data"), tmp_path / "new")
    assert "queue number 1: its declaration is lost; it is now q, which messages were sent to" in told
    assert "queue number 2: its declaration is lost; it is now salvaged-2, since not even its name is known" in told
    assert (
        "left out, since one of the two is not declared any more: queue other to exchange amq.topic, routing key #"
        in told
    )
    assert "what was declared in lost records may be missing, and what was deleted in them may be back" in told


def test_salvage_tells_of_a_missing_segment_and_a_torn_tail(sound: MemoryDisk, tmp_path: Path) -> None:
    disk = sound.copy()
    gone, last = disk.segments()[1], disk.segments()[-1]
    disk.unlink(gone)
    disk.truncate(last, len(disk.files[last]) - 1)
    disk.create("journal-000000000009.log.new")
    told = lines("salvage", written(disk, tmp_path / "data"), tmp_path / "new")
    assert told[0] == f"{gone.partition('-')[0]}-000000000003.log, offset 0: the segment is missing"
    assert "at least 0 and at most" in told[1]
    text = "\n".join(told)
    assert "had left a queue later on anyway" in text
    assert f"torn tail: {last}" in text
    assert "not read, since newer files stand for them: journal-000000000009.log.new" in text


@pytest.mark.parametrize("there", ["file", "folder with something in it"])
def test_salvage_writes_over_nothing(data: Path, tmp_path: Path, there: str) -> None:
    new = tmp_path / "new"
    if there == "file":
        new.write_text("precious")
    else:
        new.mkdir()
        (new / "precious").write_text("precious")
    result = run("salvage", data, new)
    assert result.exit_code == 2
    assert result.stderr == f"rabbitish: {new} is there already, and not an empty directory\n"
    assert run("salvage", data, data).exit_code == 2


def test_salvage_into_an_empty_folder(data: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    RealDisk(tmp_path / "new").close()  # as an earlier try leaves it
    assert lines("salvage", data, tmp_path / "new")


def test_salvage_what_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir()
    (path / "journal-000000000001.log").write_bytes(b"no journal" * 50)
    result = run("salvage", path, tmp_path / "new")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"rabbitish: nothing can be read of {path}: journal-000000000001.log: ")
    assert result.stderr.count("\n") == 1


# --- What cannot be looked at -----------------------------------------------------------------------------------------

COMMANDS = [["verify"], ["inspect"], ["salvage"]]


def invoked(command: list[str], path: Path, tmp_path: Path) -> Result:
    return run(*command, path, *([tmp_path / "new"] if command == ["salvage"] else []))


@pytest.mark.parametrize("command", COMMANDS)
def test_where_there_is_no_journal(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = invoked(command, tmp_path / "empty", tmp_path)
    assert (result.exit_code, result.stderr) == (2, f"rabbitish: there is no journal in {tmp_path / 'empty'}\n")
    assert list((tmp_path / "empty").iterdir()) == []
    result = invoked(command, tmp_path / "nowhere", tmp_path)
    assert result.exit_code == 2
    assert result.stderr == f"rabbitish: {tmp_path / 'nowhere'} cannot be read: No such file or directory\n"
    assert not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    assert run(*command).exit_code == 2


@pytest.fixture
def broker(sound: MemoryDisk, tmp_path: Path) -> Iterator[Path]:
    """The data directory of a broker that runs."""
    path = written(sound, tmp_path / "data")
    command = [sys.executable, "-m", "rabbitish", "serve", "--port", "0", "--data-dir", str(path)]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("RABBITISH_")}
    with subprocess.Popen(command, cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "listening" in process.stdout.readline()
            yield path
        finally:
            process.kill()


def test_a_running_broker_is_left_alone_but_may_be_looked_at(broker: Path, tmp_path: Path) -> None:
    for command in (["verify"], ["salvage"]):
        result = invoked(command, broker, tmp_path)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"rabbitish: {broker} is in use by a running broker")
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()
    result = run("inspect", "--queue", "plain", broker)
    assert result.exit_code == 0
    assert " to plain; exchange" in result.stdout


def test_a_broker_starts_on_what_was_salvaged(sound: MemoryDisk, tmp_path: Path) -> None:
    disk = sound.copy()
    flip_some(disk, Random(1), 5)
    new = tmp_path / "new"
    damaged = written(disk, tmp_path / "damaged")
    users = '{"rabbitish_access": 1, "users": [{"name": "joe"}], "vhosts": [{"name": "/"}]}'
    (damaged / "access.json").write_text(users)
    assert lines("salvage", damaged, new)
    assert (new / "access.json").read_text() == users
    command = [sys.executable, "-m", "rabbitish", "serve", "--port", "0", "--data-dir", str(new)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "listening" in process.stdout.readline()
        process.terminate()
    assert process.returncode == 0
    assert lines("verify", new)[-1].startswith("sound: 5 queues")
