"""Runtime parameters: values that a virtual host has by component and name, and what some of them mean.

Those of the components "vhost-limits" and "operator_policy" are not kept as such; they are the limits and the operator
policies of a virtual host by another name, as in RabbitMQ. Any other component is kept and does nothing, so that files
of brokers with plugins that are not here can be taken and given back.
"""

from __future__ import annotations

from rabbitish.core.access.document import limits_of
from rabbitish.core.access.fields import as_object
from rabbitish.core.access.policies import read_policy
from rabbitish.core.access.records import AccessError
from rabbitish.core.access.roster import Roster

VHOST_LIMITS = "vhost-limits"
OPERATOR_POLICY = "operator_policy"
_NO_LIMITS = {"max-connections": -1, "max-queues": -1}


def set_parameter(draft: Roster, vhost: str, component: str, name: str, value: object) -> str:
    """Set a parameter; what somebody should know of it, or nothing. AccessError: it cannot be set."""
    fields = as_object(value)
    if component == "policy":
        raise AccessError("policies may not be set using this method")
    if component == VHOST_LIMITS:
        if fields is None or name != "limits":
            raise AccessError(f'the component {VHOST_LIMITS} has one parameter, "limits", which is an object')
        draft.set_vhost_limits(vhost, {**_NO_LIMITS, **fields})
        return ""
    if component == OPERATOR_POLICY:
        if fields is None:
            raise AccessError("an operator policy is an object")
        definition = as_object(fields.get("definition"))
        if definition:
            fields = {**fields, "definition": definition}
        draft.set_policy(vhost, read_policy(name, fields, operator=True), operator=True)
        return ""
    draft.set_parameter(vhost, component, name, value)
    return f"kept, but nothing here knows the component '{component}'"


def clear_parameter(draft: Roster, vhost: str, component: str, name: str) -> None:
    """Clear a parameter. AccessError: there is none."""
    if component == "policy":
        raise AccessError("policies may not be cleared using this method")
    if component == OPERATOR_POLICY:
        draft.clear_policy(vhost, name, operator=True)
    elif component == VHOST_LIMITS and name == "limits" and limits_of(draft.vhost(vhost)):
        draft.set_vhost_limits(vhost, {**_NO_LIMITS})
    else:
        draft.clear_parameter(vhost, component, name)


def parameters_of(roster: Roster) -> list[tuple[tuple[str, str, str], object]]:
    """All parameters by virtual host, component and name, in that order."""
    found: dict[tuple[str, str, str], object] = dict(roster.parameters)
    for record in roster.vhosts.values():
        if limits_of(record):
            found[record.name, VHOST_LIMITS, "limits"] = limits_of(record)
    for (vhost, name), policy in roster.operator_policies.items():
        found[vhost, OPERATOR_POLICY, name] = policy.value
    return sorted(found.items(), key=lambda item: item[0])
