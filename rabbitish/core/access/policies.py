"""A policy: for the queues and exchanges of a virtual host whose name an expression matches, what else holds for them.

Plain values, read from RabbitMQ's JSON and written as it: `Policy.value` is what definitions have under "value" where a
policy is a runtime parameter (operator policies: component "operator_policy"), and with "vhost" and "name" beside that
the entry under "policies". Faults are told in RabbitMQ's words, all of a policy at once. Which policy an object has and
what follows from it is policing.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TypeAlias

from rabbitish.core.access.pattern_syntax import PatternError
from rabbitish.core.access.patterns import compiled
from rabbitish.core.access.policy_keys import fault_of, shown
from rabbitish.core.access.records import AccessError, check_name
from rabbitish.core.arguments import erlang_string

Definition: TypeAlias = Mapping[str, object]

APPLY_TO = ("queues", "exchanges", "all", "classic_queues", "quorum_queues", "streams")
"""What a policy may be for; the last three are newer servers'."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy or an operator policy; its virtual host is not here."""

    name: str
    pattern: str
    definition: Definition
    priority: int | float = 0
    apply_to: str = "all"

    @property
    def value(self) -> dict[str, object]:
        """All but the name, as RabbitMQ's JSON has it."""
        return {
            "pattern": self.pattern,
            "definition": dict(self.definition),
            "priority": self.priority,
            "apply-to": self.apply_to,
        }


def read_policy(name: str, value: Mapping[str, object], *, operator: bool = False) -> Policy:
    """The policy of that name with such a `Policy.value`; priority and apply-to may be missing.

    AccessError: something in it cannot be.
    """
    check_name("the policy's name", name)
    given = {"priority": 0, "apply-to": "all", **value}
    faults: list[str] = []
    if unknown := sorted(given.keys() - _PARTS.keys()):
        terms = ",".join(f"{{{shown(key)},{shown(given[key])}}}" for key in unknown)
        faults.append(f"Unrecognised terms [{terms}] in {name}")
    for key, check in _PARTS.items():  # the last one first, as RabbitMQ tells them
        try:
            fault = check(given[key], operator) if key in given else f'Key "{key}" not found in {name}'
        except RecursionError:
            fault = f"{key} is nested too deeply"
        if fault is not None:
            faults.append(fault)
    if faults:
        raise AccessError("\n".join(("Validation failed\n", *faults)))
    pattern, definition, priority, apply_to = (given[k] for k in ("pattern", "definition", "priority", "apply-to"))
    assert isinstance(pattern, str) and isinstance(definition, dict) and isinstance(priority, int | float)
    return Policy(name, pattern, dict(definition), priority, str(apply_to))


def _definition_fault(definition: object, operator: bool) -> str | None:
    if definition == []:
        return "no policy provided"
    if not isinstance(definition, dict) or not all(isinstance(key, str) for key in definition):
        return f"definition must be a dictionary: {shown(definition)}"
    return fault_of(definition, operator=operator)


def _apply_to_fault(apply_to: object, _operator: bool) -> str | None:
    if apply_to in APPLY_TO:
        return None
    what = apply_to if isinstance(apply_to, str) else shown(apply_to)
    return f"apply-to '{what}' unrecognised; should be 'queues', 'exchanges' or 'all'"


def _pattern_fault(pattern: object, _operator: bool) -> str | None:
    if not isinstance(pattern, str):
        return f"pattern should be a binary but was {shown(pattern)}"
    try:
        compiled(pattern)
    except PatternError as error:
        return f"pattern should be regular expression but is invalid: {{{erlang_string(error.why)},{error.at}}}"
    return None


def _priority_fault(priority: object, _operator: bool) -> str | None:
    if isinstance(priority, int) and not isinstance(priority, bool):
        return None
    if isinstance(priority, float) and isfinite(priority):
        return None
    return f"priority should be a number, actually was {shown(priority)}"


_PARTS: dict[str, Callable[[object, bool], str | None]] = {
    "definition": _definition_fault,
    "apply-to": _apply_to_fault,
    "pattern": _pattern_fault,
    "priority": _priority_fault,
}
