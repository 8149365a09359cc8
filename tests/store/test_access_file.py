"""Users and permissions on disk: the old file or the new one, whatever happens; and what is said of a bad one."""

from __future__ import annotations

import pytest

from rabbitish.core.access.passwords import hash_as_rabbitmq, hash_password
from rabbitish.core.access.records import Permission, TopicPermission, VhostRecord
from rabbitish.core.access.roster import Roster
from rabbitish.store.access_file import ACCESS_FILE, AccessDamaged, Unsure, copy_roster, read_roster, write_roster

from .fake_disk import FakeDisk

SALT = bytes(range(16))


def make(users: int = 1) -> Roster:
    roster = Roster()
    roster.add_vhost(VhostRecord("/"))
    roster.add_vhost(VhostRecord("v ö\n", "what for", ("a", "b"), "classic", tracing=True, max_queues=3))
    roster.add_user("guest", hash_as_rabbitmq(b"guest", SALT), ["administrator"])
    roster.add_user("mute", None)
    for number in range(users):
        roster.add_user(f"user {number}\u2028", hash_password(b"x", SALT, 4), ["b", "a"])
    roster.set_user_limits("mute", {"max-channels": 0, "max-connections": 7})
    roster.set_permissions("guest", "v ö\n", Permission(".*", "^(?!a)", ""))
    roster.set_topic_permissions("mute", "/", "amq.topic", TopicPermission("{username}", ""))
    return roster


def parts(roster: Roster | None) -> object:
    assert roster is not None
    return roster.users, roster.vhosts, roster.permissions, roster.topic_permissions


def test_what_is_written_is_read() -> None:
    disk = FakeDisk()
    assert read_roster(disk) is None
    write_roster(disk, make())
    write_roster(disk, make(3))
    assert disk.names() == [ACCESS_FILE]
    assert parts(read_roster(disk.power_lost(1))) == parts(make(3))


def test_the_old_or_the_new_wherever_it_fails() -> None:
    """At each step in turn; by the end of the process or of the power."""
    old, new = parts(make(1)), parts(make(2))
    outcomes: set[str] = set()
    step = 0
    while "done" not in outcomes:
        step += 1
        for seed in range(4):
            disk = FakeDisk()
            write_roster(disk, make(1))
            disk = disk.killed(fail_at=step)
            disk.random.seed(seed)
            try:
                write_roster(disk, make(2))
            except Unsure:
                outcomes.add("unsure")
                expected = (old, new)
            except OSError:
                outcomes.add("failed")
                expected = (old,)
            else:
                outcomes.add("done")
                expected = (new,)
            for left in (disk.killed(), disk.power_lost(seed)):
                assert parts(read_roster(left)) in expected
                write_roster(left, make(3))  # whatever is left over is not in the way
                assert parts(read_roster(left)) == parts(make(3))
    assert outcomes == {"failed", "unsure", "done"}


def test_a_copy() -> None:
    disk, to = FakeDisk(), FakeDisk()
    assert not copy_roster(disk, to) and to.names() == []
    write_roster(disk, make())
    assert copy_roster(disk, to)
    assert parts(read_roster(to)) == parts(make())


def with_file(data: bytes) -> FakeDisk:
    disk = FakeDisk()
    file = disk.create(ACCESS_FILE)
    file.write(data)
    file.sync()
    file.close()
    return disk


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_file_that_is_something_else(data: bytes) -> None:
    with pytest.raises(AccessDamaged):
        read_roster(with_file(data))


def test_a_file_that_somebody_has_edited() -> None:
    with pytest.raises(AccessDamaged) as refused:
        read_roster(with_file(b'{"rabbitish_access": 1, "users": [{"name": "joe", "tags": "x"}]}'))
    text = f"{ACCESS_FILE} cannot be used: users[0]: tags must be a list of strings, not 'x'"
    assert str(refused.value) == text
