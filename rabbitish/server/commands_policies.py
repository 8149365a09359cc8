"""Commands for a running broker, continued: policies and operator policies.

As in commands.py, whose table they are entered in. A definition is a JSON object; whatever is wrong with one is told in
rabbitmqctl's words.
"""

from __future__ import annotations

from rabbitish.core.access.policies import read_policy
from rabbitish.server.commands import Call, command


async def _set(
    call: Call, vhost: str, name: str, operator: bool, pattern: str, definition: object, priority: object, apply_to: str
) -> None:
    value = {"pattern": pattern, "definition": definition, "priority": priority, "apply-to": apply_to}
    policy = read_policy(name, value, operator=operator)
    await call.change(
        "operator policy set" if operator else "policy set",
        lambda roster: roster.set_policy(vhost, policy, operator=operator),
        vhost=vhost,
        policy=name,
        pattern=pattern,
        definition=dict(policy.definition),
        priority=priority,
        apply_to=apply_to,
    )


async def _clear(call: Call, vhost: str, name: str, operator: bool) -> None:
    await call.change(
        "operator policy cleared" if operator else "policy cleared",
        lambda roster: roster.clear_policy(vhost, name, operator=operator),
        vhost=vhost,
        policy=name,
    )


def _list(call: Call, vhost: str, operator: bool) -> list[dict[str, object]]:
    call.roster.vhost(vhost)
    policies = call.roster.policies_of(vhost, operator=operator)
    return [{"vhost": vhost, "name": policy.name, **policy.value} for policy in reversed(policies)]


@command
async def set_policy(
    call: Call,
    name: str,
    pattern: str,
    definition: object,
    priority: object = 0,
    apply_to: str = "all",
    vhost: str = "/",
) -> None:
    """In place of the one of that name; when this returns it holds for all that there is."""
    await _set(call, vhost, name, False, pattern, definition, priority, apply_to)


@command
async def clear_policy(call: Call, name: str, vhost: str = "/") -> None:
    """What it did is undone."""
    await _clear(call, vhost, name, False)


@command
async def list_policies(call: Call, vhost: str = "/") -> list[dict[str, object]]:
    """Of a virtual host, those that go before others last."""
    return _list(call, vhost, False)


@command
async def set_operator_policy(
    call: Call,
    name: str,
    pattern: str,
    definition: object,
    priority: object = 0,
    apply_to: str = "all",
    vhost: str = "/",
) -> None:
    """The same for limits that hold whatever policies and arguments say."""
    await _set(call, vhost, name, True, pattern, definition, priority, apply_to)


@command
async def clear_operator_policy(call: Call, name: str, vhost: str = "/") -> None:
    """What it did is undone."""
    await _clear(call, vhost, name, True)


@command
async def list_operator_policies(call: Call, vhost: str = "/") -> list[dict[str, object]]:
    """Of a virtual host, those that go before others last."""
    return _list(call, vhost, True)
