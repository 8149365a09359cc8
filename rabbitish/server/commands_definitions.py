"""Commands for a running broker, continued: definitions, runtime parameters, tracing, and a virtual host's metadata.

As in commands.py, whose table they are entered in.
"""

from __future__ import annotations

from typing import Any

from rabbitish.core.access.records import AccessError
from rabbitish.core.access.roster import Roster
from rabbitish.core.definitions import parameters
from rabbitish.server import definitions
from rabbitish.server.commands import Call, command

# ---- definitions


@command
async def export_definitions(call: Call, vhost: str | None = None) -> bytes:
    """Of everything, or of one virtual host."""
    return await definitions.export_definitions(call.node, vhost)


@command
async def import_definitions(call: Call, content: bytes, vhost: str | None = None) -> dict[str, Any]:
    """As a whole or not at all; with a virtual host, a file of one into that one."""
    imported = await definitions.import_definitions(call.node, call.actor, content, vhost)
    return {"objects": imported.objects, "made": imported.made, "notes": imported.notes}


# ---- runtime parameters


@command
async def set_parameter(call: Call, component: str, name: str, value: object, vhost: str = "/") -> str | None:
    """What should be known of it, if anything."""
    notes: list[str] = []

    def make(roster: Roster) -> None:
        notes.append(parameters.set_parameter(roster, vhost, component, name, value))

    await call.change("parameter set", make, vhost=vhost, component=component, name=name)
    return notes[0] or None


@command
async def clear_parameter(call: Call, component: str, name: str, vhost: str = "/") -> None:
    """There must be such a parameter."""
    await call.change(
        "parameter cleared",
        lambda roster: parameters.clear_parameter(roster, vhost, component, name),
        vhost=vhost,
        component=component,
        name=name,
    )


@command
async def list_parameters(call: Call, vhost: str = "/") -> list[dict[str, object]]:
    """Limits and operator policies are parameters as well."""
    call.roster.vhost(vhost)
    return [
        {"component": component, "name": name, "value": value}
        for (where, component, name), value in parameters.parameters_of(call.roster)
        if where == vhost
    ]


@command
async def set_global_parameter(call: Call, name: str, value: object) -> None:
    """One that no virtual host has."""
    await call.change("global parameter set", lambda roster: roster.set_global_parameter(name, value), name=name)


@command
async def clear_global_parameter(call: Call, name: str) -> None:
    """There must be such a parameter."""
    await call.change("global parameter cleared", lambda roster: roster.clear_global_parameter(name), name=name)


@command
async def list_global_parameters(call: Call) -> list[dict[str, object]]:
    """All of them."""
    return [{"name": name, "value": value} for name, value in sorted(call.roster.global_parameters.items())]


@command
async def set_cluster_name(call: Call, name: str) -> None:
    """What server-properties say from now on: the global parameter cluster_name."""
    await call.change("cluster name set", lambda roster: roster.set_global_parameter("cluster_name", name), name=name)


# ---- users


@command
async def authenticate_user(call: Call, name: str, password: str) -> str:
    """Whether it is the user's password; no login, so limits and addresses do not count."""
    user = call.roster.users.get(name)
    hashed = user.password if user is not None else None
    raw = password.encode("utf-8", "surrogatepass")
    right = hashed is not None and await call.node.registrar.matches_in_thread(hashed, raw)
    call.node.hub.audit("password tried", actor=call.actor, user=name, right=right)
    if not right:
        raise AccessError(f'failed to authenticate user "{name}"')
    return "Success"


@command
async def list_user_topic_permissions(call: Call, user: str) -> list[dict[str, object]]:
    """Of a user in all virtual hosts."""
    call.roster.user(user)
    entries = call.roster.topic_permissions.items()
    return [
        {"vhost": vhost, "exchange": exchange, **each._asdict()}
        for (who, vhost, exchange), each in entries
        if who == user
    ]


# ---- virtual hosts


@command
async def set_vhost_tags(call: Call, name: str, tags: list[str]) -> None:
    """Replaces all tags."""
    await call.change("virtual host tags set", lambda roster: roster.update_vhost(name, tags=tags), vhost=name)


@command
async def update_vhost_metadata(
    call: Call,
    name: str,
    description: str | None = None,
    tags: list[str] | None = None,
    default_queue_type: str | None = None,
) -> None:
    """What is not given stays."""
    await call.change(
        "virtual host metadata set",
        lambda roster: roster.update_vhost(
            name, description=description, tags=tags, default_queue_type=default_queue_type
        ),
        vhost=name,
    )


@command
async def trace_on(call: Call, vhost: str = "/") -> str:
    """Copies of all messages go to the exchange amq.rabbitmq.trace from now on."""
    await call.change("tracing on", lambda roster: roster.set_tracing(vhost, on=True), vhost=vhost)
    return f"Trace enabled for vhost {vhost}"


@command
async def trace_off(call: Call, vhost: str = "/") -> str:
    """No more copies."""
    await call.change("tracing off", lambda roster: roster.set_tracing(vhost, on=False), vhost=vhost)
    return f"Trace disabled for vhost {vhost}"
