"""Which policy each queue and exchange has, and what holds for it because of that.

Of the policies whose expression matches a name the one of the highest priority holds, alone; an operator policy, found
the same way, holds beside it. What policies say meets what an object was declared with: of two numbers that limit
something the smaller holds, of anything else the argument (rabbit_queue_type_util:args_policy_lookup). RabbitMQ passes
over a policy as a whole that has a key which a queue's type does not know; so it is here.

Expressions get a number of steps for a name, each and all together. One that has not found the name by then is taken
for one that does not match, and whoever wants to know is told, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from rabbitish.core.access.patterns import Budget, Pattern, TooHard, compiled
from rabbitish.core.access.policies import Definition, Policy
from rabbitish.core.access.policy_keys import LIMITS
from rabbitish.core.access.roster import Roster
from rabbitish.core.arguments import EXPIRY_MS_MAX, QueueOptions

# What queues of a type do not know (capabilities of rabbit_classic_queue, rabbit_quorum_queue, rabbit_stream_queue).
# delivery-limit is not among it, since that works on all of ours.
_STREAMS_ALONE = frozenset(("max-age", "stream-filter-size-bytes", "stream-max-segment-size-bytes"))
_NOT_FOR = {
    "classic": _STREAMS_ALONE
    | {"dead-letter-strategy", "initial-cluster-size", "queue-leader-locator", "target-group-size"},
    "quorum": _STREAMS_ALONE
    | {"ha-mode", "ha-params", "ha-promote-on-failure", "ha-promote-on-shutdown", "ha-sync-mode"}
    | {"initial-cluster-size", "queue-master-locator", "queue-mode"},
    "stream": LIMITS - {"max-length-bytes"}
    | {"dead-letter-exchange", "dead-letter-routing-key", "dead-letter-strategy", "overflow"}
    | {"ha-mode", "ha-params", "ha-promote-on-failure", "ha-promote-on-shutdown", "ha-sync-mode"}
    | {"queue-master-locator", "queue-mode"},
}
_APPLY_TO = {
    "classic": ("queues", "all", "classic_queues"),
    "quorum": ("queues", "all", "quorum_queues"),
    "stream": ("queues", "all", "streams"),
}


# For all policies together, and once more for all operator policies, which nobody else's can use up. With two or three
# milliseconds of work before it (governor.py) this stays below 20 ms; hundreds of ordinary ones are within it.
STEPS_PER_NAME = 12_000

OnTooHard: TypeAlias = "Callable[[Policy, str], None]"
"""Hears of a policy that is taken for one that does not match, and of the first name for which that is so."""


class Governing(NamedTuple):
    """The policies that an object has."""

    policy: Policy | None = None
    operator_policy: Policy | None = None

    @property
    def definition(self) -> Definition:
        """What both say together."""
        return merged(
            self.policy.definition if self.policy is not None else {},
            self.operator_policy.definition if self.operator_policy is not None else {},
        )


UNGOVERNED = Governing()


def merged(definition: Definition, operator: Definition) -> Definition:
    """What a policy and an operator policy say together: of what both limit, the smaller number."""
    both = {**definition, **operator}
    for key in definition.keys() & operator.keys():
        both[key] = _smaller(_number(definition, key), _number(operator, key))
    return both


class Policies:
    """The policies of a virtual host. `policies` and `operator_policies`: the one that goes before others is first.

    `steps` counts what matching has taken so far.
    """

    __slots__ = ("_operators", "_too_hard", "_users", "on_too_hard", "operator_policies", "policies", "steps")

    def __init__(self, policies: Sequence[Policy] = (), operator_policies: Sequence[Policy] = ()) -> None:
        self.policies = tuple(policies)
        self.operator_policies = tuple(operator_policies)
        self.steps = 0
        self.on_too_hard: OnTooHard | None = None
        self._too_hard: set[int] = set()  # policies that it was told of, by id
        self._users = [(compiled(policy.pattern), policy) for policy in policies]
        self._operators = [(compiled(policy.pattern), policy) for policy in operator_policies]

    def same(self, other: Policies) -> bool:
        """Whether these are the same policies."""
        return self.policies == other.policies and self.operator_policies == other.operator_policies

    def __len__(self) -> int:
        return len(self.policies) + len(self.operator_policies)

    def of_queue(self, name: str, queue_type: str) -> Governing:
        """What a queue of this name and type has."""
        if not self:
            return UNGOVERNED
        kinds, unknown = _APPLY_TO[queue_type], _NOT_FOR[queue_type]
        return Governing(
            self._first(self._users, name, kinds, unknown), self._first(self._operators, name, kinds, unknown)
        )

    def of_exchange(self, name: str) -> Governing:
        """What an exchange of this name has."""
        if not self:
            return UNGOVERNED
        kinds: tuple[str, ...] = ("exchanges", "all")
        return Governing(
            self._first(self._users, name, kinds, frozenset()), self._first(self._operators, name, kinds, frozenset())
        )

    def _first(
        self, policies: Sequence[tuple[Pattern, Policy]], name: str, kinds: tuple[str, ...], unknown: frozenset[str]
    ) -> Policy | None:
        subject = name.encode("utf-8", "surrogateescape")
        budget = Budget(STEPS_PER_NAME)
        found = None
        for pattern, policy in policies:
            if policy.apply_to in kinds and unknown.isdisjoint(policy.definition):
                try:
                    if pattern.matches(subject, budget):
                        found = policy
                        break
                except TooHard:
                    self._pass_over(policy, name)
        self.steps += STEPS_PER_NAME - budget.left
        return found

    def _pass_over(self, policy: Policy, name: str) -> None:
        if id(policy) not in self._too_hard:
            self._too_hard.add(id(policy))
            if self.on_too_hard is not None:
                self.on_too_hard(policy, name)


NO_POLICIES = Policies()


def policies_by_vhost(roster: Roster) -> dict[str, Policies]:
    """All policies of a roster, where there are any."""
    users, operators = roster.all_policies(), roster.all_policies(operator=True)
    return {vhost: Policies(users.get(vhost, ()), operators.get(vhost, ())) for vhost in users | operators}


def governed(declared: QueueOptions, definition: Definition) -> QueueOptions:
    """What holds for a queue that was declared with these options."""
    if not definition:
        return declared
    overflow = _argument(declared.overflow, definition, "overflow")
    expires = _smaller(declared.expires_ms, _moment(definition, "expires"))
    if declared.quorum:  # of these the policy's goes before the argument's
        overflow = _text(definition, "overflow") or declared.overflow
        expires = _moment(definition, "expires") or declared.expires_ms
    return replace(
        declared,
        message_ttl_ms=_smaller(declared.message_ttl_ms, _moment(definition, "message-ttl")),
        expires_ms=expires,
        max_length=_smaller(declared.max_length, _number(definition, "max-length")),
        max_length_bytes=_smaller(declared.max_length_bytes, _number(definition, "max-length-bytes")),
        overflow=overflow,
        dead_letter_exchange=_argument(declared.dead_letter_exchange, definition, "dead-letter-exchange"),
        dead_letter_routing_key=_argument(declared.dead_letter_routing_key, definition, "dead-letter-routing-key"),
        delivery_limit=_smaller(declared.delivery_limit, _number(definition, "delivery-limit")),
        dead_letter_strategy=_argument(declared.dead_letter_strategy, definition, "dead-letter-strategy"),
        consumer_timeout_ms=_smaller(declared.consumer_timeout_ms, _moment(definition, "consumer-timeout") or None),
    )


def _number(definition: Definition, key: str) -> int | None:
    value = definition.get(key)
    return value if isinstance(value, int) else None


def _moment(definition: Definition, key: str) -> int | None:
    """A time, which RabbitMQ takes however long it is."""
    value = _number(definition, key)
    return None if value is None else min(value, EXPIRY_MS_MAX)


def _smaller(declared: int | None, value: int | None) -> int | None:
    if declared is None or value is None:
        return value if declared is None else declared
    return min(declared, value)


def _argument(declared: str | None, definition: Definition, key: str) -> str | None:
    return declared if declared is not None else _text(definition, key)


def _text(definition: Definition, key: str) -> str | None:
    value = definition.get(key)
    return value if isinstance(value, str) else None
