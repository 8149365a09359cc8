"""A roster as a document of plain lists and dicts, for JSON: what the store keeps.

The keys are those of RabbitMQ's definitions where those have one. Reading checks everything, since people edit files:
whatever is wrong comes out as an `AccessError` that names the object at fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rabbitish.core.access.fields import Fields
from rabbitish.core.access.passwords import SHA256, read_hash
from rabbitish.core.access.policies import Policy, read_policy
from rabbitish.core.access.records import AccessError, Permission, TopicPermission, User, VhostRecord
from rabbitish.core.access.roster import Roster

VERSION = 1


def to_document(roster: Roster) -> dict[str, object]:
    """The document of a roster."""
    return {
        "rabbitish_access": VERSION,
        "users": [_user(user) for user in roster.users.values()],
        "vhosts": [_vhost(record) for record in roster.vhosts.values()],
        "permissions": [
            {"user": user, "vhost": vhost, **permission._asdict()}
            for (user, vhost), permission in roster.permissions.items()
        ],
        "topic_permissions": [
            {"user": user, "vhost": vhost, "exchange": exchange, **permission._asdict()}
            for (user, vhost, exchange), permission in roster.topic_permissions.items()
        ],
        "policies": _policies(roster.policies),
        "operator_policies": _policies(roster.operator_policies),
        "parameters": [
            {"vhost": vhost, "component": component, "name": name, "value": value}
            for (vhost, component, name), value in roster.parameters.items()
        ],
        "global_parameters": [{"name": name, "value": value} for name, value in roster.global_parameters.items()],
    }


def _policies(policies: dict[tuple[str, str], Policy]) -> list[dict[str, object]]:
    return [{"vhost": vhost, "name": name, **policy.value} for (vhost, name), policy in policies.items()]


def limits_of(thing: User | VhostRecord) -> dict[str, int]:
    """The limits that are set, by RabbitMQ's names."""
    names = ("max_connections", "max_channels", "max_queues")
    found = {name.replace("_", "-"): getattr(thing, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _user(user: User) -> dict[str, object]:
    password = user.password
    return {
        "name": user.name,
        "password_hash": password.encoded() if password is not None else "",
        "hashing_algorithm": password.algorithm if password is not None else SHA256,
        "tags": sorted(user.tags),
        "limits": limits_of(user),
    }


def _vhost(record: VhostRecord) -> dict[str, object]:
    return {
        "name": record.name,
        "metadata": {
            "description": record.description,
            "tags": list(record.tags),
            "default_queue_type": record.default_queue_type,
        },
        "tracing": record.tracing,
        "limits": limits_of(record),
    }


def from_document(document: object) -> Roster:
    """The roster of a document. AccessError: it is none, or something in it cannot be."""
    if not isinstance(document, dict):
        raise AccessError("it is no JSON object")
    version = document.get("rabbitish_access")
    if version != VERSION:
        raise AccessError(f"it has version {version!r}, and {VERSION} is the only one that is known")
    roster = Roster()
    for section, read in _READERS.items():
        for fields in _entries(document, section):
            try:
                read(roster, fields)
            except AccessError as error:
                raise fields.explained(error) from None
    return roster


def _entries(document: dict[str, Any], section: str) -> Iterator[Fields]:
    entries = document.get(section, [])
    if not isinstance(entries, list):
        raise AccessError(f"{section} is no list")
    for number, fields in enumerate(entries):
        if not isinstance(fields, dict):
            raise AccessError(f"{section}[{number}] is no object")
        yield Fields(f"{section}[{number}]", fields)


def _read_user(roster: Roster, fields: Fields) -> None:
    name, text = fields.text("name"), fields.text("password_hash", "")
    try:
        hashed = read_hash(fields.text("hashing_algorithm", SHA256), text) if text else None
    except ValueError as error:
        raise AccessError(f'user "{name}": {error}') from None
    roster.add_user(name, hashed, fields.strings("tags"))
    roster.set_user_limits(name, fields.object_("limits"))


def _read_vhost(roster: Roster, fields: Fields) -> None:
    name, metadata = fields.text("name"), fields.inside("metadata")
    tags, description = tuple(metadata.strings("tags")), metadata.text("description", "")
    default = metadata.text("default_queue_type") if metadata.has("default_queue_type") else None
    if name in roster.vhosts:
        raise AccessError(f"there are two virtual hosts '{name}'")
    roster.add_vhost(VhostRecord(name, description, tags, default, fields.flag("tracing", False)))
    roster.set_vhost_limits(name, fields.object_("limits"))


def _read_permission(roster: Roster, fields: Fields) -> None:
    permission = Permission(fields.text("configure"), fields.text("write"), fields.text("read"))
    roster.set_permissions(fields.text("user"), fields.text("vhost"), permission)


def _read_topic_permission(roster: Roster, fields: Fields) -> None:
    permission = TopicPermission(fields.text("write"), fields.text("read"))
    roster.set_topic_permissions(fields.text("user"), fields.text("vhost"), fields.text("exchange"), permission)


def _read_policy(roster: Roster, fields: Fields, *, operator: bool = False) -> None:
    policy = read_policy(fields.text("name"), fields.but("vhost", "name"), operator=operator)
    roster.set_policy(fields.text("vhost"), policy, operator=operator)


def _read_operator_policy(roster: Roster, fields: Fields) -> None:
    _read_policy(roster, fields, operator=True)


def _read_parameter(roster: Roster, fields: Fields) -> None:
    component, name = fields.text("component"), fields.text("name")
    roster.set_parameter(fields.text("vhost"), component, name, fields.value("value"))


def _read_global_parameter(roster: Roster, fields: Fields) -> None:
    roster.set_global_parameter(fields.text("name"), fields.value("value"))


# In this order, since permissions are of users in virtual hosts.
_READERS: dict[str, Callable[[Roster, Fields], None]] = {
    "vhosts": _read_vhost,
    "users": _read_user,
    "permissions": _read_permission,
    "topic_permissions": _read_topic_permission,
    "policies": _read_policy,
    "operator_policies": _read_operator_policy,
    "parameters": _read_parameter,
    "global_parameters": _read_global_parameter,
}
