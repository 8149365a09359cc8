"""Users, virtual hosts, permissions, policies and parameters of a definitions file, put into a draft of a roster.

What is there under the same name is replaced, what is not in the file stays. Where RabbitMQ does something odd it is
followed: limits of a virtual host come from the parameter "vhost-limits", a user without a password cannot log in with
one, and versions before 3.6 meant MD5 when they named no algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from rabbitish.core.access.fields import printable
from rabbitish.core.access.passwords import SHA256, Hashed, read_hash
from rabbitish.core.access.policies import read_policy
from rabbitish.core.access.records import AccessError, Permission, TopicPermission, VhostRecord
from rabbitish.core.access.roster import Roster
from rabbitish.core.definitions.decode import Document
from rabbitish.core.definitions.entry import Entry
from rabbitish.core.definitions.parameters import VHOST_LIMITS, set_parameter

_MD5 = "rabbit_password_hashing_md5"
_MD5_VERSIONS = tuple(f"3.{minor}." for minor in range(6))

# What objects have as keys, in files of any version of RabbitMQ.
_KEYS = {
    "users": "name password password_hash hashing_algorithm tags administrator limits permissions",
    "vhosts": "name description tags metadata default_queue_type tracing limits protected_from_deletion cluster_state",
    "permissions": "user vhost configure write read",
    "topic_permissions": "user vhost exchange write read",
    "parameters": "vhost component name value",
    "global_parameters": "name value",
    "policies": "vhost name pattern definition priority apply-to",
}
_OF_ONE_VHOST = ("policies", "parameters")

Hashes: TypeAlias = Mapping[str, Hashed]
_Read: TypeAlias = "Callable[[_Reader, Entry], object]"


def passwords(document: Document) -> dict[str, bytes]:
    """The passwords that stand in a file as they are, by user: hashing them takes long, so it is done before.

    AccessError: one of them is no text.
    """
    found: dict[str, bytes] = {}
    for fields in document.section("users"):
        name, password = fields.get("name"), fields.get("password")
        if isinstance(name, str) and isinstance(password, str) and password:
            try:
                found[name] = password.encode()
            except UnicodeEncodeError:
                raise AccessError(printable(f'user "{name}": password is not valid UTF-8')) from None
    return found


def read_access(
    document: Document, draft: Roster, hashes: Hashes, vhost: str | None = None
) -> Generator[None, None, list[str]]:
    """Put what a file says into a draft; what somebody should know of it. AccessError: something in it cannot be.

    `hashes` are of the passwords in the file. With `vhost` only what belongs into one virtual host is looked at, and
    all of it is for that one.
    """
    reader = _Reader(document, draft, hashes, vhost)
    for section, read in _SECTIONS.items():
        known = frozenset(_KEYS[section].split())
        seen: dict[object, Mapping[str, Any]] = {}
        if vhost is not None and section not in _OF_ONE_VHOST:
            if document.section(section):
                reader.notes.append(f"{section}: left out, the file is for one virtual host")
            continue
        for number, fields in enumerate(document.section(section)):
            entry = Entry(f"{section}[{number}]", fields)
            entry.only(known)
            try:
                key = read(reader, entry)
            except AccessError as error:
                raise entry.explained(error) from None
            if seen.setdefault(key, fields) != fields:
                raise entry.refuse("it stands there twice, and not the same")
            yield
        if section == "vhosts":
            reader.grant()
    return reader.notes


class _Reader:
    """Reads entries into a draft. Each method returns what tells its objects apart."""

    def __init__(self, document: Document, draft: Roster, hashes: Hashes, vhost: str | None) -> None:
        self._draft = draft
        self._hashes = hashes
        self._vhost = vhost
        self._md5 = document.version.startswith(_MD5_VERSIONS)
        self._limited = [
            fields.get("vhost") for fields in document.section("parameters") if fields.get("component") == VHOST_LIMITS
        ]
        self._granted: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def _vhost_of(self, entry: Entry) -> str:
        return self._vhost if self._vhost is not None else entry.text("vhost")

    # ---- users

    def user(self, entry: Entry) -> object:
        name = entry.text("name")
        entry.where = f'user "{name}"'
        tags = entry.tags("tags")
        if not entry.has("tags") and entry.has("administrator"):
            tags = ["administrator"] if str(entry.value("administrator")).lower() == "true" else []
        hashed = self._password(entry, name)
        draft = self._draft
        if name not in draft.users:
            draft.add_user(name, hashed, tags)
            self._first_permissions(entry, name)
        else:
            draft.set_tags(name, tags)
            draft.set_password(name, hashed)
        draft.set_user_limits(name, entry.object_("limits"))
        return name

    def _password(self, entry: Entry, name: str) -> Hashed | None:
        text = entry.text("password_hash", "")
        if entry.has("password"):
            if entry.has("password_hash"):
                raise entry.refuse("both password and password_hash are given")
            return self._hashes.get(name) if entry.text("password") else None
        if not text:
            return None
        algorithm = entry.text("hashing_algorithm", _MD5 if self._md5 else SHA256)
        try:
            return read_hash(algorithm, text)
        except ValueError as error:
            raise entry.refuse(error) from None

    def _first_permissions(self, entry: Entry, user: str) -> None:
        """What a user who is new may do from the start, by virtual host."""
        for vhost, fields in entry.object_("permissions").items():
            if not isinstance(fields, dict):
                raise entry.refuse(f"permissions in vhost '{vhost}' must be an object")
            self._granted.append({"user": user, "vhost": vhost, **fields})

    def grant(self) -> None:
        """Give new users the permissions that stand with them, now that the virtual hosts are there."""
        for number, fields in enumerate(self._granted):
            entry = Entry(f"users[{number}]", fields)
            try:
                self.permission(entry)
            except AccessError as error:
                raise entry.explained(error) from None

    # ---- virtual hosts

    def vhost(self, entry: Entry) -> object:
        name = entry.text("name")
        entry.where = f"vhost '{name}'"
        inside = entry.inside("metadata")
        description = entry.text("description", inside.text("description", ""))
        tags = tuple((entry if entry.has("tags") else inside).tags("tags"))
        default = next((each.text("default_queue_type") for each in (inside, entry) if _typed(each)), None)
        draft = self._draft
        old = draft.vhosts.get(name)
        record = VhostRecord(name, description, tags, default)
        if old is not None:
            record = replace(
                old, description=description, tags=tags, default_queue_type=default or old.default_queue_type
            )
            del draft.vhosts[name]
        draft.add_vhost(record)
        if entry.has("tracing"):
            draft.set_tracing(name, on=entry.flag("tracing"))
        if entry.has("limits") and name not in self._limited:
            draft.set_vhost_limits(name, entry.object_("limits"))
        return name

    # ---- permissions

    def permission(self, entry: Entry) -> object:
        user, vhost = entry.text("user"), entry.text("vhost")
        entry.where = f"permissions of user \"{user}\" in vhost '{vhost}'"
        permission = Permission(entry.text("configure"), entry.text("write"), entry.text("read"))
        self._draft.set_permissions(user, vhost, permission)
        return user, vhost

    def topic_permission(self, entry: Entry) -> object:
        user, vhost, exchange = entry.text("user"), entry.text("vhost"), entry.text("exchange")
        entry.where = f"topic permissions of user \"{user}\" for exchange '{exchange}' in vhost '{vhost}'"
        permission = TopicPermission(entry.text("write"), entry.text("read"))
        self._draft.set_topic_permissions(user, vhost, exchange, permission)
        return user, vhost, exchange

    # ---- policies and parameters

    def policy(self, entry: Entry) -> object:
        vhost, name = self._vhost_of(entry), entry.text("name")
        entry.where = f"policy '{name}' in vhost '{vhost}'"
        value = {"pattern": entry.value("pattern"), "definition": entry.object_("definition")}
        value |= {key: entry.value(key) for key in ("priority", "apply-to") if entry.has(key)}
        self._draft.set_policy(vhost, read_policy(name, value))
        return vhost, name

    def parameter(self, entry: Entry) -> object:
        vhost, component, name = self._vhost_of(entry), entry.text("component"), entry.text("name")
        entry.where = f"parameter '{name}' of component '{component}' in vhost '{vhost}'"
        note = set_parameter(self._draft, vhost, component, name, entry.value("value"))
        if note:
            self.notes.append(entry.where + ": " + note)
        return vhost, component, name

    def global_parameter(self, entry: Entry) -> object:
        name = entry.text("name")
        entry.where = f"global parameter '{name}'"
        self._draft.set_global_parameter(name, entry.value("value"))
        return name


def _typed(entry: Entry) -> bool:
    """Whether it names a queue type; RabbitMQ writes "undefined" for none."""
    return entry.has("default_queue_type") and entry.value("default_queue_type") != "undefined"


_SECTIONS: dict[str, _Read] = {
    "users": _Reader.user,
    "vhosts": _Reader.vhost,
    "permissions": _Reader.permission,
    "topic_permissions": _Reader.topic_permission,
    "global_parameters": _Reader.global_parameter,
    "policies": _Reader.policy,
    "parameters": _Reader.parameter,
}
