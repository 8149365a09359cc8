"""All users, permissions and virtual hosts of a broker, and every change to them.

A roster is changed as a copy: `draft` gives one, changes are made to it, it is written to disk, and only then is it
adopted. So a change, or a hundred that belong together, holds as a whole or not at all, on disk and in memory. A change
that cannot be made raises `AccessError` and may leave the draft half changed; it is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rabbitish.core.access.passwords import Hashed
from rabbitish.core.access.pattern_cost import costly
from rabbitish.core.access.pattern_syntax import PatternError
from rabbitish.core.access.patterns import compiled
from rabbitish.core.access.policies import Policy
from rabbitish.core.access.records import (
    QUEUE_TYPES,
    USER_LIMITS,
    VHOST_LIMITS,
    AccessError,
    Permission,
    TopicPermission,
    User,
    VhostRecord,
    check_depth,
    check_limits,
    check_name,
)


class Roster:
    """Users by name, permissions by user and virtual host, topic permissions by exchange too, virtual hosts by name.

    Policies and operator policies by virtual host and name, runtime parameters by virtual host, component and name.
    """

    __slots__ = (
        "global_parameters",
        "operator_policies",
        "parameters",
        "permissions",
        "policies",
        "topic_permissions",
        "users",
        "vhosts",
    )

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.vhosts: dict[str, VhostRecord] = {}
        self.permissions: dict[tuple[str, str], Permission] = {}
        self.topic_permissions: dict[tuple[str, str, str], TopicPermission] = {}
        self.policies: dict[tuple[str, str], Policy] = {}
        self.operator_policies: dict[tuple[str, str], Policy] = {}
        self.parameters: dict[tuple[str, str, str], object] = {}
        self.global_parameters: dict[str, object] = {}

    def same_as(self, other: Roster) -> bool:
        """Whether everything in both is equal."""
        return all(getattr(self, name) == getattr(other, name) for name in Roster.__slots__)

    def draft(self) -> Roster:
        """A copy to make changes to."""
        copy = Draft()
        copy.users, copy.vhosts = dict(self.users), dict(self.vhosts)
        copy.permissions, copy.topic_permissions = dict(self.permissions), dict(self.topic_permissions)
        copy.policies, copy.operator_policies = dict(self.policies), dict(self.operator_policies)
        copy.parameters, copy.global_parameters = dict(self.parameters), dict(self.global_parameters)
        return copy

    def _check_pattern(self, text: str) -> None:
        try:
            compiled(text)
        except PatternError as error:
            raise _wrong(text, str(error)) from None

    # ---- users

    def user(self, name: str) -> User:
        """AccessError: there is none."""
        found = self.users.get(name)
        if found is None:
            raise AccessError(f'User "{name}" does not exist')
        return found

    def add_user(self, name: str, password: Hashed | None, tags: Iterable[str] = ()) -> None:
        """A new user, who may do nothing yet."""
        check_name("the user's name", name)
        if name in self.users:
            raise AccessError(f'User "{name}" already exists')
        self.users[name] = User(name, _tags(tags), password)

    def delete_user(self, name: str) -> None:
        """The user goes with all permissions."""
        del self.users[self.user(name).name]
        self.permissions = {key: value for key, value in self.permissions.items() if key[0] != name}
        self.topic_permissions = {key: value for key, value in self.topic_permissions.items() if key[0] != name}

    def set_password(self, name: str, password: Hashed | None) -> None:
        """None: nobody logs in with a password."""
        self.users[name] = replace(self.user(name), password=password)

    def set_tags(self, name: str, tags: Iterable[str]) -> None:
        """Replace all tags."""
        self.users[name] = replace(self.user(name), tags=_tags(tags))

    def set_user_limits(self, name: str, limits: dict[str, object]) -> None:
        """Set these limits, and leave others as they are."""
        user = self.user(name)
        self.users[name] = replace(user, **check_limits(USER_LIMITS, limits))  # type: ignore[arg-type]

    # ---- permissions

    def set_permissions(self, user: str, vhost: str, permission: Permission) -> None:
        """Replace what a user may do in a virtual host."""
        for text in permission:
            self._check_pattern(text)
        self._user_and_vhost(user, vhost)
        self.permissions[user, vhost] = permission

    def clear_permissions(self, user: str, vhost: str) -> None:
        """The user may not even enter any more."""
        self._user_and_vhost(user, vhost)
        self.permissions.pop((user, vhost), None)

    def set_topic_permissions(self, user: str, vhost: str, exchange: str, permission: TopicPermission) -> None:
        """Replace which routing keys a user may use on a topic exchange."""
        for text in permission:
            self._check_pattern(text)
        self._user_and_vhost(user, vhost)
        check_name("the exchange's name", exchange)
        self.topic_permissions[user, vhost, exchange] = permission

    def clear_topic_permissions(self, user: str, vhost: str, exchange: str | None = None) -> None:
        """All routing keys are allowed on that exchange, or on all."""
        self._user_and_vhost(user, vhost)
        gone = [key for key in self.topic_permissions if key[:2] == (user, vhost) and exchange in (None, key[2])]
        for key in gone:
            del self.topic_permissions[key]

    def _user_and_vhost(self, user: str, vhost: str) -> None:
        self.vhost(vhost)
        self.user(user)

    # ---- virtual hosts

    def vhost(self, name: str) -> VhostRecord:
        """AccessError: there is none."""
        found = self.vhosts.get(name)
        if found is None:
            raise AccessError(f"Virtual host '{name}' does not exist")
        return found

    def add_vhost(self, record: VhostRecord) -> None:
        """One that is there already stays as it is, as with RabbitMQ."""
        check_name("the virtual host's name", record.name)
        if record.default_queue_type is not None:
            _check_queue_type(record.default_queue_type)
        self.vhosts.setdefault(record.name, record)

    def delete_vhost(self, name: str) -> None:
        """It goes with all permissions in it."""
        del self.vhosts[self.vhost(name).name]
        self.permissions = {key: value for key, value in self.permissions.items() if key[1] != name}
        self.topic_permissions = {key: value for key, value in self.topic_permissions.items() if key[1] != name}
        self.policies = {key: value for key, value in self.policies.items() if key[0] != name}
        self.operator_policies = {key: value for key, value in self.operator_policies.items() if key[0] != name}
        self.parameters = {key: value for key, value in self.parameters.items() if key[0] != name}

    def set_vhost_limits(self, name: str, limits: dict[str, object]) -> None:
        """Set these limits, and leave others as they are."""
        record = self.vhost(name)
        self.vhosts[name] = replace(record, **check_limits(VHOST_LIMITS, limits))  # type: ignore[arg-type]

    def update_vhost(
        self,
        name: str,
        *,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        default_queue_type: str | None = None,
    ) -> None:
        """Replace what is given of a virtual host's metadata; the rest stays."""
        record = self.vhost(name)
        if description is not None:
            record = replace(record, description=description)
        if tags is not None:
            record = replace(record, tags=tuple(tags))
        if default_queue_type is not None:
            _check_queue_type(default_queue_type)
            record = replace(record, default_queue_type=default_queue_type)
        self.vhosts[name] = record

    def set_tracing(self, name: str, *, on: bool) -> None:
        """Whether messages are to be traced."""
        self.vhosts[name] = replace(self.vhost(name), tracing=on)

    # ---- policies: `read_policy` has checked them

    def set_policy(self, vhost: str, policy: Policy, *, operator: bool = False) -> None:
        """Add a policy to a virtual host, or replace the one of its name."""
        self.vhost(vhost)
        self._check_pattern(policy.pattern)
        check_depth(policy.definition)
        self._policies(operator)[vhost, policy.name] = policy

    def clear_policy(self, vhost: str, name: str, *, operator: bool = False) -> None:
        """There is no such policy any more. AccessError: there was none."""
        if self._policies(operator).pop((vhost, name), None) is None:
            raise AccessError("Parameter does not exist")

    def policies_of(self, vhost: str, *, operator: bool = False) -> list[Policy]:
        """The policies of a virtual host, the one that comes first where several match first."""
        return _in_order(policy for (where, _), policy in self._policies(operator).items() if where == vhost)

    def all_policies(self, *, operator: bool = False) -> dict[str, list[Policy]]:
        """The same for each virtual host that has any."""
        found: dict[str, list[Policy]] = {}
        for (vhost, _), policy in self._policies(operator).items():
            found.setdefault(vhost, []).append(policy)
        return {vhost: _in_order(policies) for vhost, policies in found.items()}

    def _policies(self, operator: bool) -> dict[tuple[str, str], Policy]:
        return self.operator_policies if operator else self.policies

    # ---- runtime parameters

    def set_parameter(self, vhost: str, component: str, name: str, value: object) -> None:
        """Keep a value, in place of the one of that name."""
        self.vhost(vhost)
        check_name("the component's name", component)
        check_name("the parameter's name", name)
        check_depth(value)
        self.parameters[vhost, component, name] = value

    def clear_parameter(self, vhost: str, component: str, name: str) -> None:
        """AccessError: there is none."""
        self.vhost(vhost)
        if (vhost, component, name) not in self.parameters:
            raise AccessError("Parameter does not exist")
        del self.parameters[vhost, component, name]

    def set_global_parameter(self, name: str, value: object) -> None:
        """Keep a value that is no virtual host's."""
        check_name("the parameter's name", name)
        if name == "cluster_name":  # travels in server-properties
            check_name("cluster_name", value if isinstance(value, str) else "")
        check_depth(value)
        self.global_parameters[name] = value

    def clear_global_parameter(self, name: str) -> None:
        """AccessError: there is none."""
        if name not in self.global_parameters:
            raise AccessError("Parameter does not exist")
        del self.global_parameters[name]

    @property
    def cluster_name(self) -> str | None:
        """What the broker is to be called, if anybody said."""
        name = self.global_parameters.get("cluster_name")
        return name if isinstance(name, str) else None


class Draft(Roster):
    """One that somebody changes: it refuses expressions that take too long, which one that is read again takes."""

    __slots__ = ()

    def _check_pattern(self, text: str) -> None:
        super()._check_pattern(text)
        if costly(text):
            raise _wrong(text, "it takes too many steps to match with a name")


def _in_order(policies: Iterable[Policy]) -> list[Policy]:
    return sorted(policies, key=lambda policy: (-policy.priority, policy.name))


def _tags(tags: Iterable[str]) -> frozenset[str]:
    kept = frozenset(tag for tag in tags if tag)
    for tag in kept:
        check_name("a tag", tag)
    return kept


def _check_queue_type(name: str) -> None:
    if name not in QUEUE_TYPES:
        raise AccessError(f"Unsupported default queue type; there are {', '.join(QUEUE_TYPES)}")


def _wrong(text: str, why: str) -> AccessError:
    return AccessError(f'invalid regular expression "{text}": {why}')
