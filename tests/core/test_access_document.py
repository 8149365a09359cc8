"""A roster as a document and back, and what is said of documents that cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rabbitish.core.access.document import from_document, to_document
from rabbitish.core.access.passwords import hash_as_rabbitmq, hash_password
from rabbitish.core.access.records import AccessError, Permission, TopicPermission, VhostRecord
from rabbitish.core.access.roster import Roster

SALT = bytes(range(16))


def make() -> Roster:
    roster = Roster()
    roster.add_vhost(VhostRecord("/"))
    roster.add_vhost(VhostRecord("v ö\n", "what for", ("a", "b"), "classic", tracing=True, max_queues=3))
    roster.add_user("guest", hash_as_rabbitmq(b"guest", SALT), ["administrator"])
    roster.add_user("mute", None)
    roster.add_user("ann\u2028", hash_password(b"x", SALT, 4), ["b", "a"])
    roster.set_user_limits("mute", {"max-channels": 0, "max-connections": 7})
    roster.set_permissions("guest", "v ö\n", Permission(".*", "^(?!a)", ""))
    roster.set_topic_permissions("mute", "/", "amq.topic", TopicPermission("{username}", ""))
    return roster


def test_there_and_back() -> None:
    roster, again = make(), from_document(json.loads(json.dumps(to_document(make()))))
    assert (again.users, again.vhosts) == (roster.users, roster.vhosts)
    assert (again.permissions, again.topic_permissions) == (roster.permissions, roster.topic_permissions)


def test_little_is_needed() -> None:
    roster = from_document({"rabbitish_access": 1, "users": [{"name": "joe"}], "vhosts": [{"name": "/"}]})
    assert roster.users["joe"].password is None and roster.vhosts == {"/": VhostRecord("/")}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: d.update(rabbitish_access=2), "it has version 2"),
        (lambda d: d.update(users={}), "users is no list"),
        (lambda d: d["users"].insert(1, "joe"), "users[1] is no object"),
        (lambda d: d["users"][0].pop("name"), "users[0]: name is missing"),
        (lambda d: d["users"].append(d["users"][0]), 'users[3]: User "guest" already exists'),
        (lambda d: d["users"][0].update(password_hash="AAAA"), 'users[0]: user "guest": password_hash is no hash'),
        (lambda d: d["users"][0].update(hashing_algorithm="x"), "users[0]: user \"guest\": hashing_algorithm 'x'"),
        (lambda d: d["users"][0].update(tags="administrator"), "users[0]: tags must be a list of strings"),
        (lambda d: d["users"][0].update(limits=5), "users[0]: limits must be an object"),
        (lambda d: d["users"][0].update(limits={"max-queues": 1}), 'users[0]: Unrecognised limit "max-queues"'),
        (lambda d: d["vhosts"].append({"name": "/"}), "vhosts[2]: there are two virtual hosts '/'"),
        (lambda d: d["vhosts"][0].update(tracing=1), "vhosts[0]: tracing must be true or false"),
        (lambda d: d["vhosts"][0]["metadata"].update(default_queue_type="x"), "vhosts[0]: Unsupported default queue"),
        (lambda d: d["permissions"][0].update(write="["), 'permissions[0]: invalid regular expression "["'),
        (lambda d: d["permissions"][0].update(user="nobody"), 'permissions[0]: User "nobody" does not exist'),
        (lambda d: d["topic_permissions"][0].pop("exchange"), "topic_permissions[0]: exchange is missing"),
    ],
)
def test_what_cannot_be(change: Callable[[Any], None], why: str) -> None:
    document = to_document(make())
    change(document)
    with pytest.raises(AccessError) as refused:
        from_document(document)
    assert why in str(refused.value)


@pytest.mark.parametrize("document", [None, [], "x", {}])
def test_what_is_something_else(document: object) -> None:
    with pytest.raises(AccessError):
        from_document(document)
