"""Commands for a running broker: users, permissions, virtual hosts, connections. The table is `COMMANDS`.

Names follow rabbitmqctl. A command is an async function of a `Call` and of keyword arguments, whose types say what may
be sent for them; it returns what JSON can hold, or raises `AccessError` in words for people. What only looks is in
listings.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from rabbitish.core.access.document import limits_of
from rabbitish.core.access.passwords import Hashed
from rabbitish.core.access.records import AccessError, Permission, TopicPermission, VhostRecord
from rabbitish.core.access.roster import Roster
from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.server import listings
from rabbitish.session.connection import Session

if TYPE_CHECKING:
    from rabbitish.cluster.etcd import Etcd
    from rabbitish.cluster.member import Member
    from rabbitish.cluster.membership import Names
    from rabbitish.config import Settings
    from rabbitish.server.cluster_place import ClusterPlace
    from rabbitish.server.front import Front
    from rabbitish.server.node import Node


class ClusterView(Protocol):
    """What commands need of a node in a cluster. `Clustered` is one."""

    @property
    def settings(self) -> Settings: ...
    @property
    def place(self) -> ClusterPlace: ...
    @property
    def etcd(self) -> Etcd: ...
    @property
    def names(self) -> Names: ...
    @property
    def part(self) -> Member: ...
    @property
    def front(self) -> Front: ...


class Call(NamedTuple):
    """Where a command runs, and who gave it."""

    serves: Node | None
    """The broker; None while this node is a mirror."""
    actor: str
    cluster: ClusterView | None = None
    """The node's place in a cluster, if it has one."""

    @property
    def node(self) -> Node:
        """The broker. AccessError: it is not here, and where it is."""
        if self.serves is None:
            leader = self.cluster.front.leader if self.cluster is not None else None
            if leader is None:
                raise AccessError("this node does not lead its cluster, and nobody is known to; ask again in a moment")
            raise AccessError(f"this node does not lead its cluster: give the command on node {leader.node}")
        return self.serves

    @property
    def roster(self) -> Roster:
        """What there is."""
        return self.node.hub.access.roster

    async def change(self, event: str, make: Callable[[Roster], None], **fields: object) -> None:
        """Change it. AccessError: it cannot be changed."""
        await self.node.registrar.change(self.actor, event, make, **fields)


class Command(NamedTuple):
    """A command, and the names of its arguments with what they hold, and whether they may be left out."""

    run: Callable[..., Awaitable[Any]]
    arguments: dict[str, tuple[str, bool]]


COMMANDS: dict[str, Command] = {}

_KINDS: dict[str, Callable[[object], bool]] = {
    "str": lambda value: isinstance(value, str),
    "str | None": lambda value: value is None or isinstance(value, str),
    "list[str]": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "list[str] | None": lambda value: value is None or _KINDS["list[str]"](value),
    "dict[str, object]": lambda value: isinstance(value, dict),
    "bool": lambda value: isinstance(value, bool),
    "object": lambda value: True,
    "bytes": lambda value: isinstance(value, bytes),  # the content that follows a request
}


def command(run: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Enter a function into `COMMANDS` under its own name."""
    parameters = list(inspect.signature(run).parameters.values())[1:]
    arguments = {each.name: (str(each.annotation), each.default is not each.empty) for each in parameters}
    COMMANDS[run.__name__] = Command(run, arguments)
    return run


def check_arguments(called: Command, given: object) -> dict[str, Any]:
    """What was sent for a command's arguments. AccessError: it is not what they hold."""
    if not isinstance(given, dict):
        raise AccessError("arguments must be an object")
    for name, value in given.items():
        if name not in called.arguments:
            raise AccessError(f"there is no argument {name!r}")
        if not _KINDS[called.arguments[name][0]](value):
            raise AccessError(f"argument {name!r} must be {called.arguments[name][0]}")
    for name, (_, optional) in called.arguments.items():
        if name not in given and not optional:
            raise AccessError(f"argument {name!r} is missing")
    return given


# ---- users


def _bytes(password: str) -> bytes:
    try:
        return password.encode()
    except UnicodeEncodeError:
        raise AccessError("the password is not valid UTF-8") from None


async def _hashed(call: Call, password: str) -> Hashed:
    if not password:
        raise AccessError("password cannot be empty")
    return await call.node.registrar.hash_in_thread(_bytes(password))


@command
async def add_user(call: Call, name: str, password: str) -> None:
    """A new user, who may do nothing yet."""
    hashed = await _hashed(call, password)
    await call.change("user added", lambda roster: roster.add_user(name, hashed), user=name)
    call.node.hub.access.logins.know(call.roster.users[name], _bytes(password))


@command
async def delete_user(call: Call, name: str) -> None:
    """The user's connections are closed."""
    await call.change("user deleted", lambda roster: roster.delete_user(name), user=name)


@command
async def change_password(call: Call, name: str, password: str) -> None:
    """The old one is good for nothing from now on; open connections stay."""
    hashed = await _hashed(call, password)
    await call.change("password changed", lambda roster: roster.set_password(name, hashed), user=name)
    call.node.hub.access.logins.know(call.roster.users[name], _bytes(password))


@command
async def clear_password(call: Call, name: str) -> None:
    """The user logs in by other means than a password from now on."""
    await call.change("password cleared", lambda roster: roster.set_password(name, None), user=name)


@command
async def set_user_tags(call: Call, name: str, tags: list[str]) -> None:
    """Replaces all tags."""
    await call.change("user tags set", lambda roster: roster.set_tags(name, tags), user=name, tags=tags)


@command
async def set_user_limits(call: Call, name: str, limits: dict[str, object]) -> None:
    """max-connections, max-channels; negative: none."""
    await call.change("user limits set", lambda roster: roster.set_user_limits(name, limits), user=name, limits=limits)


@command
async def clear_user_limits(call: Call, name: str, limit: str = "all") -> None:
    """One limit, or all."""
    limits = dict.fromkeys(("max-connections", "max-channels") if limit == "all" else (limit,), -1)
    await call.change("user limits cleared", lambda r: r.set_user_limits(name, {**limits}), user=name, limit=limit)


@command
async def list_users(call: Call) -> list[dict[str, object]]:
    """All users."""
    return [{"user": user.name, "tags": sorted(user.tags)} for user in call.roster.users.values()]


@command
async def list_user_limits(call: Call) -> list[dict[str, object]]:
    """Users that have limits."""
    users = call.roster.users.values()
    return [{"user": user.name, "limits": limits_of(user)} for user in users if limits_of(user)]


# ---- permissions


@command
async def set_permissions(call: Call, user: str, configure: str, write: str, read: str, vhost: str = "/") -> None:
    """Replaces what the user may do in the virtual host; connections that are open notice at once."""
    permission = Permission(configure, write, read)
    await call.change(
        "permissions set",
        lambda roster: roster.set_permissions(user, vhost, permission),
        user=user,
        vhost=vhost,
        **permission._asdict(),
    )


@command
async def clear_permissions(call: Call, user: str, vhost: str = "/") -> None:
    """The user may not enter the virtual host any more."""
    await call.change(
        "permissions cleared", lambda roster: roster.clear_permissions(user, vhost), user=user, vhost=vhost
    )


@command
async def list_permissions(call: Call, vhost: str = "/") -> list[dict[str, object]]:
    """Of all users in a virtual host."""
    call.roster.vhost(vhost)
    entries = call.roster.permissions.items()
    return [{"user": user, **each._asdict()} for (user, where), each in entries if where == vhost]


@command
async def list_user_permissions(call: Call, user: str) -> list[dict[str, object]]:
    """Of a user in all virtual hosts."""
    call.roster.user(user)
    entries = call.roster.permissions.items()
    return [{"vhost": vhost, **each._asdict()} for (who, vhost), each in entries if who == user]


@command
async def set_topic_permissions(call: Call, user: str, exchange: str, write: str, read: str, vhost: str = "/") -> None:
    """Which routing keys the user may use on a topic exchange."""
    permission = TopicPermission(write, read)
    await call.change(
        "topic permissions set",
        lambda roster: roster.set_topic_permissions(user, vhost, exchange, permission),
        user=user,
        vhost=vhost,
        exchange=exchange,
        **permission._asdict(),
    )


@command
async def clear_topic_permissions(call: Call, user: str, exchange: str | None = None, vhost: str = "/") -> None:
    """On one exchange, or on all."""
    await call.change(
        "topic permissions cleared",
        lambda roster: roster.clear_topic_permissions(user, vhost, exchange),
        user=user,
        vhost=vhost,
        exchange=exchange,
    )


@command
async def list_topic_permissions(call: Call, vhost: str = "/") -> list[dict[str, object]]:
    """Of all users in a virtual host."""
    call.roster.vhost(vhost)
    entries = call.roster.topic_permissions.items()
    return [
        {"user": user, "exchange": exchange, **each._asdict()}
        for (user, where, exchange), each in entries
        if where == vhost
    ]


# ---- virtual hosts


@command
async def add_vhost(
    call: Call,
    name: str,
    description: str = "",
    tags: list[str] | None = None,
    default_queue_type: str | None = None,
) -> None:
    """One that is there already stays as it is."""
    record = VhostRecord(name, description, tuple(tags or ()), default_queue_type)
    await call.change("virtual host added", lambda roster: roster.add_vhost(record), vhost=name)


@command
async def delete_vhost(call: Call, name: str) -> None:
    """With everything in it; its connections are closed."""
    await call.change("virtual host deleted", lambda roster: roster.delete_vhost(name), vhost=name)


@command
async def set_vhost_limits(call: Call, limits: dict[str, object], vhost: str = "/") -> None:
    """max-connections, max-queues; negative: none."""
    await call.change(
        "virtual host limits set", lambda roster: roster.set_vhost_limits(vhost, limits), vhost=vhost, limits=limits
    )


@command
async def clear_vhost_limits(call: Call, vhost: str = "/") -> None:
    """All limits."""
    none: dict[str, object] = {"max-connections": -1, "max-queues": -1}
    await call.change("virtual host limits cleared", lambda roster: roster.set_vhost_limits(vhost, none), vhost=vhost)


@command
async def list_vhosts(call: Call) -> list[dict[str, object]]:
    """All virtual hosts."""
    return [
        {
            "name": record.name,
            "description": record.description,
            "tags": list(record.tags),
            "default_queue_type": record.default_queue_type,
            "tracing": record.tracing,
        }
        for record in call.roster.vhosts.values()
    ]


@command
async def list_vhost_limits(call: Call) -> list[dict[str, object]]:
    """Virtual hosts that have limits."""
    records = call.roster.vhosts.values()
    return [{"vhost": record.name, "limits": limits_of(record)} for record in records if limits_of(record)]


# ---- connections


def _close(call: Call, sessions: list[Session], reason: str) -> int:
    now = call.node.now()
    for session in sessions:
        session.stop(ConnectionFailure(ReplyCode.CONNECTION_FORCED, reason), now)
        call.node.hub.audit("connection closed", actor=call.actor, connection=session.peer.name, reason=reason)
    call.node.pump(now)
    return len(sessions)


@command
async def close_connection(call: Call, connection: str, explanation: str) -> None:
    """The connection of that name, as list_connections has it."""
    found = [session for session in call.node.links if session.peer.name == connection]
    if not found:
        raise AccessError(f'there is no connection "{connection}"')
    _close(call, found, explanation)


@command
async def close_all_connections(call: Call, explanation: str, vhost: str | None = None) -> int:
    """All, or those of a virtual host; how many."""
    running = [session for session in call.node.links if session.state == "running"]
    return _close(call, [each for each in running if vhost in (None, each.vhost.name)], explanation)


@command
async def close_all_user_connections(call: Call, user: str, explanation: str) -> int:
    """All of a user; how many."""
    return _close(call, [session for session in call.node.links if session.user.name == user], explanation)


# ---- looking


def _look(name: str, look: Callable[[Call, str], list[dict[str, object]]]) -> None:
    async def run(call: Call, vhost: str = "/") -> list[dict[str, object]]:
        call.roster.vhost(vhost)
        return look(call, vhost)

    run.__name__ = name
    command(run)


def _with_members(call: Call, rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Queues, in a cluster with the nodes that have them."""
    view = call.cluster.part.replica.view if call.cluster is not None else None
    return rows if view is None else listings.with_members(rows, view.state)


_look("list_queues", lambda call, vhost: _with_members(call, listings.queues(call.node, vhost)))
_look("list_exchanges", lambda call, vhost: listings.exchanges(call.node, vhost))
_look("list_bindings", lambda call, vhost: listings.bindings(call.node, vhost))
_look("list_consumers", lambda call, vhost: listings.consumers(call.node, vhost))


@command
async def list_connections(call: Call) -> list[dict[str, object]]:
    """All connections."""
    return listings.connections(call.node)


@command
async def list_channels(call: Call) -> list[dict[str, object]]:
    """All channels."""
    return listings.channels(call.node)


@command
async def await_startup(call: Call) -> None:
    """Nothing: whoever is answered need not wait."""


@command
async def status(call: Call) -> dict[str, object]:
    """How the broker is, or the node that is a mirror of it."""
    if call.cluster is None:
        return listings.status(call.node)
    about = listings.mirror_status(call.cluster.settings, call.cluster.front.urls)
    if call.serves is not None:
        about = listings.status(call.serves)
    replica, leader = call.cluster.part.replica, call.cluster.front.leader
    return {
        **about,
        "cluster": str(call.cluster.place.cluster),
        "node": call.cluster.place.node,
        "role": replica.role.value,
        "leader": call.cluster.place.node if call.serves is not None else leader.node if leader is not None else "",
        "relayed_connections": call.cluster.front.relays,
    }
