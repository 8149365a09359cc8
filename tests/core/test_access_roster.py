"""Changes of users, permissions and virtual hosts; and the rights that follow from them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish.core.access import Access
from rabbitish.core.access.passwords import (
    SALT_BYTES,
    SCRYPT,
    SHA256,
    hash_as_rabbitmq,
    hash_password,
    matches,
    read_hash,
)
from rabbitish.core.access.records import AccessError, Permission, TopicPermission, VhostRecord
from rabbitish.core.access.rights import Rights
from rabbitish.core.access.roster import Roster

SALT = bytes(range(SALT_BYTES))
TEAM = Permission("^team", "^team|^amq\\.default$", "^team")


@pytest.fixture
def roster() -> Roster:
    roster = Roster()
    roster.add_vhost(VhostRecord("/"))
    roster.add_vhost(VhostRecord("v"))
    roster.add_user("joe", None, ["monitoring", ""])
    roster.add_user("ann", None)
    roster.set_permissions("joe", "v", TEAM)
    roster.set_topic_permissions("joe", "v", "amq.topic", TopicPermission("^{username}\\.", "^{vhost}\\."))
    return roster


def rights(roster: Roster, user: str = "joe", vhost: str = "v") -> Rights:
    access = Access(frozenset(), key=b"k", cost=4)
    access.adopt(roster)
    return access.rights(user, vhost)


# --- changes ---------------------------------------------------------------------------------------------------------


def test_a_draft_is_a_copy(roster: Roster) -> None:
    draft = roster.draft()
    draft.delete_user("joe")
    draft.delete_vhost("v")
    draft.add_user("new", None)
    assert (set(roster.users), set(roster.vhosts)) == ({"joe", "ann"}, {"/", "v"})
    assert len(roster.permissions) == len(roster.topic_permissions) == 1
    assert (draft.permissions, draft.topic_permissions) == ({}, {})


def test_users(roster: Roster) -> None:
    hashed = hash_as_rabbitmq(b"secret", SALT)
    roster.set_password("joe", hashed)
    roster.set_tags("joe", ["administrator", "impersonator"])
    roster.set_user_limits("joe", {"max-connections": 3, "max-channels": 0})
    roster.set_user_limits("joe", {"max-connections": -1})
    joe = roster.users["joe"]
    assert (joe.password, joe.tags) == (hashed, {"administrator", "impersonator"})
    assert (joe.max_connections, joe.max_channels) == (None, 0)
    roster.delete_user("joe")
    assert (roster.permissions, roster.topic_permissions) == ({}, {})


def test_virtual_hosts(roster: Roster) -> None:
    roster.set_vhost_limits("v", {"max-queues": 7})
    roster.set_tracing("v", on=True)
    roster.add_vhost(VhostRecord("v", "another"))  # there already
    assert roster.vhosts["v"] == VhostRecord("v", max_queues=7, tracing=True)
    roster.delete_vhost("v")
    assert (roster.permissions, roster.topic_permissions) == ({}, {})


def test_topic_permissions_are_cleared_one_by_one_or_all(roster: Roster) -> None:
    roster.set_topic_permissions("joe", "v", "mine", TopicPermission("", ""))
    roster.set_topic_permissions("joe", "/", "mine", TopicPermission("", ""))
    roster.clear_topic_permissions("joe", "v", "amq.topic")
    assert list(roster.topic_permissions) == [("joe", "v", "mine"), ("joe", "/", "mine")]
    roster.clear_topic_permissions("joe", "v")
    assert list(roster.topic_permissions) == [("joe", "/", "mine")]


LONG = "ä" * 128


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda roster: roster.add_user("joe", None), 'User "joe" already exists'),
        (lambda roster: roster.add_user("", None), "the user's name must not be empty"),
        (lambda roster: roster.add_user(LONG, None), "the user's name is longer than 255 bytes"),
        (lambda roster: roster.add_user("\udcff", None), "the user's name is not valid UTF-8"),
        (lambda roster: roster.add_user("new", None, [LONG]), "a tag is longer than 255 bytes"),
        (lambda roster: roster.delete_user("nobody"), 'User "nobody" does not exist'),
        (lambda roster: roster.set_password("nobody", None), 'User "nobody" does not exist'),
        (lambda roster: roster.set_tags("nobody", []), 'User "nobody" does not exist'),
        (lambda roster: roster.set_user_limits("nobody", {}), 'User "nobody" does not exist'),
        (lambda roster: roster.set_user_limits("joe", {"max-queues": 1}), 'Unrecognised limit "max-queues"'),
        (lambda roster: roster.set_user_limits("joe", {"max-channels": True}), "max-channels should be an integer"),
        (lambda roster: roster.set_vhost_limits("v", {"max-queues": "7"}), "max-queues should be an integer"),
        (lambda roster: roster.set_vhost_limits("w", {}), "Virtual host 'w' does not exist"),
        (lambda roster: roster.set_permissions("joe", "w", TEAM), "Virtual host 'w' does not exist"),
        (lambda roster: roster.set_permissions("nobody", "v", TEAM), 'User "nobody" does not exist'),
        (lambda roster: roster.set_permissions("joe", "v", Permission("", "(", "")), 'invalid regular expression "("'),
        (lambda roster: roster.clear_permissions("joe", "w"), "Virtual host 'w' does not exist"),
        (lambda roster: roster.set_topic_permissions("joe", "v", "x", TopicPermission("", "[")), 'expression "["'),
        (lambda roster: roster.set_topic_permissions("joe", "v", "", TopicPermission("", "")), "the exchange's name"),
        (lambda roster: roster.clear_topic_permissions("nobody", "v"), 'User "nobody" does not exist'),
        (lambda roster: roster.add_vhost(VhostRecord("")), "the virtual host's name must not be empty"),
        (lambda roster: roster.add_vhost(VhostRecord("w", default_queue_type="fast")), "Unsupported default queue"),
        (lambda roster: roster.delete_vhost("w"), "Virtual host 'w' does not exist"),
        (lambda roster: roster.set_tracing("w", on=True), "Virtual host 'w' does not exist"),
    ],
)
def test_changes_that_cannot_be_made(roster: Roster, change: Callable[[Roster], None], why: str) -> None:
    with pytest.raises(AccessError) as refused:
        change(roster)
    assert why in str(refused.value)


# --- passwords -------------------------------------------------------------------------------------------------------


def test_a_hash_that_rabbitmq_made() -> None:
    # rabbitmqctl eval 'base64:encode(rabbit_password:hash(<<"test12">>)).' as in RabbitMQ's documentation
    hashed = read_hash(SHA256, "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR")
    assert matches(hashed, b"test12")
    assert not matches(hashed, b"test13")
    assert hash_as_rabbitmq(b"test12", bytes.fromhex("908dc60a")) == hashed


@pytest.mark.parametrize("algorithm", ["rabbit_password_hashing_sha512", "rabbit_password_hashing_md5"])
def test_other_hashes_of_rabbitmqs(algorithm: str) -> None:
    import base64
    import hashlib

    digest = hashlib.new(algorithm.rpartition("_")[2], b"saltsecret").digest()
    hashed = read_hash(algorithm, base64.b64encode(b"salt" + digest).decode())
    assert matches(hashed, b"secret") and not matches(hashed, b"Secret")


def test_our_own_hash_says_what_it_costs() -> None:
    hashed = hash_password("sécret".encode(), SALT, 5)
    assert hashed.value[0] == 5
    assert read_hash(SCRYPT, hashed.encoded()) == hashed
    assert hashed.slow and matches(hashed, "sécret".encode()) and not matches(hashed, b"secret")
    assert hash_password("sécret".encode(), SALT[::-1], 5) != hashed


@pytest.mark.parametrize(
    ("algorithm", "text"),
    [
        (SHA256, "AAAA"),
        (SHA256, "not base64"),
        (SHA256, "ä"),
        (SCRYPT, "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"),
        (SCRYPT, "/" * 64 + "/w=="),
        ("rot13", "AAAA"),
    ],
)
def test_what_is_no_hash(algorithm: str, text: str) -> None:
    with pytest.raises(ValueError):
        read_hash(algorithm, text)


# --- rights ----------------------------------------------------------------------------------------------------------


def test_names_are_allowed_by_expressions(roster: Roster) -> None:
    joe = rights(roster)
    assert joe.enters
    assert joe.may("configure", "team.q") and not joe.may("configure", "a team")
    assert joe.may("write", "amq.default") and not joe.may("write", "amq.defaults")
    assert joe.may("read", "team") and not joe.may("read", "amq.default")
    assert joe.may("read", "team\udcff")


def test_an_empty_expression_allows_the_empty_name_alone(roster: Roster) -> None:
    roster.set_permissions("joe", "v", Permission("", "", ""))
    joe = rights(roster)
    assert joe.enters and joe.may("write", "") and not joe.may("write", "q")


def test_without_permissions_nobody_may_enter(roster: Roster) -> None:
    for user, vhost in (("joe", "/"), ("ann", "v"), ("nobody", "v")):
        assert not rights(roster, user, vhost).enters
        assert not rights(roster, user, vhost).may("read", "")
    roster.clear_permissions("joe", "v")
    assert not rights(roster).enters


def test_topics(roster: Roster) -> None:
    joe = rights(roster)
    assert joe.may_topic("write", "amq.topic", "joe.x") and not joe.may_topic("write", "amq.topic", "v.x")
    assert joe.may_topic("read", "amq.topic", "v.x") and not joe.may_topic("read", "amq.topic", "joe.x")
    assert joe.may_topic("write", "another", "whatever")


def test_a_name_in_a_topic_expression_is_no_expression(roster: Roster) -> None:
    roster.add_user("j.*", None)
    roster.set_permissions("j.*", "v", TEAM)
    roster.set_topic_permissions("j.*", "v", "amq.topic", TopicPermission("^{username}$", ""))
    odd = rights(roster, "j.*")
    assert odd.may_topic("write", "amq.topic", "j.*") and not odd.may_topic("write", "amq.topic", "jim")


def test_what_takes_too_long_is_not_allowed(roster: Roster) -> None:
    roster.set_permissions("joe", "v", Permission("(?=(.*){100}b)(?=(.*){101}b)" * 5, "", ""))
    assert not rights(roster).may("configure", "a" * 255)


def test_answers_are_remembered_and_forgotten(roster: Roster) -> None:
    access = Access(frozenset(), key=b"k", cost=4)
    access.adopt(roster)
    joe = access.rights("joe", "v")
    assert joe is access.rights("joe", "v")
    for number in range(10_000):
        assert joe.may("read", f"team{number}") and not joe.may("read", f"other{number}")
    draft = roster.draft()
    draft.set_permissions("joe", "v", Permission("", "", "^other"))
    access.adopt(draft)
    assert not access.rights("joe", "v").may("read", "team1") and access.rights("joe", "v").may("read", "other1")


def test_values_that_are_nested_too_deeply_to_be_kept(roster: Roster) -> None:
    deep: object = []
    for _ in range(98):
        deep = [deep]
    roster.set_global_parameter("deep", deep)
    roster.set_parameter("/", "shovel", "deep", {"a": []})
    with pytest.raises(AccessError, match="nested deeper than 100 levels"):
        roster.set_global_parameter("deeper", [[deep]])
    with pytest.raises(AccessError, match="nested deeper than 100 levels"):
        roster.set_parameter("/", "shovel", "deeper", {"a": [deep]})
