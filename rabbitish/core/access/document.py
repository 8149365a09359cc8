"""A roster as a document of plain lists and dicts, for JSON: what the store keeps.

The keys are those of RabbitMQ's definitions where those have one. Reading checks everything, since people edit files:
whatever is wrong comes out as an `AccessError` that names the object at fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

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
        for where, fields in _entries(document, section):
            try:
                read(roster, fields)
            except AccessError as error:
                raise AccessError(f"{where}: {error}") from None
    return roster


def _entries(document: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    entries = document.get(key, [])
    if not isinstance(entries, list):
        raise AccessError(f"{key} is no list")
    for number, fields in enumerate(entries):
        if not isinstance(fields, dict):
            raise AccessError(f"{key}[{number}] is no object")
        yield f"{key}[{number}]", fields


def _text(fields: dict[str, Any], key: str, default: str | None = None) -> str:
    value = fields.get(key, default)
    if not isinstance(value, str):
        raise AccessError(f"{key} must be a string, not {value!r}")
    return value


def _object(fields: dict[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key, {})
    if not isinstance(value, dict):
        raise AccessError(f"{key} must be an object, not {value!r}")
    return value


def _list(fields: dict[str, Any], key: str) -> list[str]:
    value = fields.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise AccessError(f"{key} must be a list of strings, not {value!r}")
    return value


def _read_user(roster: Roster, fields: dict[str, Any]) -> None:
    name, text = _text(fields, "name"), _text(fields, "password_hash", "")
    try:
        hashed = read_hash(_text(fields, "hashing_algorithm", SHA256), text) if text else None
    except ValueError as error:
        raise AccessError(f'user "{name}": {error}') from None
    roster.add_user(name, hashed, _list(fields, "tags"))
    roster.set_user_limits(name, _object(fields, "limits"))


def _read_vhost(roster: Roster, fields: dict[str, Any]) -> None:
    name, metadata = _text(fields, "name"), _object(fields, "metadata")
    tracing, default = fields.get("tracing", False), metadata.get("default_queue_type")
    if not isinstance(tracing, bool):
        raise AccessError(f"tracing must be true or false, not {tracing!r}")
    tags, description = tuple(_list(metadata, "tags")), _text(metadata, "description", "")
    if name in roster.vhosts:
        raise AccessError(f"there are two virtual hosts '{name}'")
    roster.add_vhost(VhostRecord(name, description, tags, default, tracing))
    roster.set_vhost_limits(name, _object(fields, "limits"))


def _read_permission(roster: Roster, fields: dict[str, Any]) -> None:
    permission = Permission(_text(fields, "configure"), _text(fields, "write"), _text(fields, "read"))
    roster.set_permissions(_text(fields, "user"), _text(fields, "vhost"), permission)


def _read_topic_permission(roster: Roster, fields: dict[str, Any]) -> None:
    permission = TopicPermission(_text(fields, "write"), _text(fields, "read"))
    roster.set_topic_permissions(_text(fields, "user"), _text(fields, "vhost"), _text(fields, "exchange"), permission)


def _read_policy(roster: Roster, fields: dict[str, Any], *, operator: bool = False) -> None:
    value = {key: item for key, item in fields.items() if key not in ("vhost", "name")}
    policy = read_policy(_text(fields, "name"), value, operator=operator)
    roster.set_policy(_text(fields, "vhost"), policy, operator=operator)


def _read_operator_policy(roster: Roster, fields: dict[str, Any]) -> None:
    _read_policy(roster, fields, operator=True)


def _read_parameter(roster: Roster, fields: dict[str, Any]) -> None:
    component, name = _text(fields, "component"), _text(fields, "name")
    roster.set_parameter(_text(fields, "vhost"), component, name, fields.get("value"))


def _read_global_parameter(roster: Roster, fields: dict[str, Any]) -> None:
    roster.set_global_parameter(_text(fields, "name"), fields.get("value"))


# In this order, since permissions are of users in virtual hosts.
_READERS: dict[str, Callable[[Roster, dict[str, Any]], None]] = {
    "vhosts": _read_vhost,
    "users": _read_user,
    "permissions": _read_permission,
    "topic_permissions": _read_topic_permission,
    "policies": _read_policy,
    "operator_policies": _read_operator_policy,
    "parameters": _read_parameter,
    "global_parameters": _read_global_parameter,
}
