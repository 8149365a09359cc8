"""What a policy's definition may say: its keys, which values each may have, and RabbitMQ's words for those it may not.

The keys are those of RabbitMQ 3.10 (rabbit_policies, rabbit_mirror_queue_misc, rabbit_queue_location_validator) and a
few of newer servers. A key that has no effect here is checked and kept all the same, so that definitions travel. Values
are JSON's, and texts show them as Erlang writes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from rabbitish.core.arguments import OVERFLOW_MODES, ROUTING_KEY_BYTES_MAX, erlang_term

# What is wrong with a value, or None.
_Check: TypeAlias = Callable[[object], "str | None"]

LIMITS = frozenset(
    (
        "delivery-limit",
        "expires",
        "max-in-memory-bytes",
        "max-in-memory-length",
        "max-length",
        "max-length-bytes",
        "message-ttl",
    )
)
"""Numbers of which the smaller holds, wherever two meet; and all that an operator policy may set."""

_SEGMENT_BYTES_MAX = 3_000_000_000
_MAX_AGE = re.compile(r"0*[1-9][0-9]*[YMDhms]", re.ASCII)
# These are policies of mirrored queues. Without a mode the others mean nothing.
_HA_KEYS = (
    "ha-mode",
    "ha-params",
    "ha-promote-on-failure",
    "ha-promote-on-shutdown",
    "ha-sync-batch-size",
    "ha-sync-mode",
)


def shown(value: object) -> str:
    """A JSON value as Erlang's ~p writes it."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"#{{{','.join(f'{shown(key)} => {shown(item)}' for key, item in sorted(value.items()))}}}"
    if isinstance(value, str):
        return erlang_term(value.encode("utf-8", "surrogatepass"))
    assert isinstance(value, int | float)
    return erlang_term(value)


def _integer(value: object, least: int, most: int | None = None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least and (most is None or value <= most)


def _whole(what: str, least: int = 0, most: int | None = None) -> _Check:
    return lambda value: None if _integer(value, least, most) else f"{shown(value)} is not a valid {what}"


def _name(what: str) -> _Check:
    def check(value: object) -> str | None:
        # RabbitMQ takes what is longer, and fails when it uses it.
        if isinstance(value, str):
            try:
                if len(value.encode()) <= ROUTING_KEY_BYTES_MAX:
                    return None
            except UnicodeEncodeError:  # half of a character, which JSON can say
                pass
        return f"{shown(value)} is not a valid {what}"

    return check


def _one_of(what: str, *choices: object) -> _Check:
    def check(value: object) -> str | None:
        good = isinstance(value, str | int) and not isinstance(value, bool) and value in choices
        return None if good else f"{shown(value)} is not a valid {what}"

    return check


def _max_age(value: object) -> str | None:
    good = isinstance(value, str) and _MAX_AGE.fullmatch(value) is not None
    return None if good else f"{shown(value)} is not a valid max age"


def _master_locator(value: object) -> str | None:
    good = value in ("min-masters", "client-local", "random")
    return None if good else f"{shown(value)} invalid queue-master-locator value"


_CHECKS: dict[str, _Check] = {
    "alternate-exchange": _name("alternate exchange name"),
    "consumer-timeout": _whole("consumer timeout"),
    "dead-letter-exchange": _name("dead letter exchange name"),
    "dead-letter-routing-key": _name("dead letter routing key"),
    "dead-letter-strategy": _one_of("dead letter strategy", "at-most-once", "at-least-once"),
    "delivery-limit": _whole("delivery limit"),
    "expires": _whole("queue expiry", least=1),
    "initial-cluster-size": _whole("cluster size"),
    "max-age": _max_age,
    "max-in-memory-bytes": _whole("maximum memory in bytes"),
    "max-in-memory-length": _whole("maximum memory in bytes"),  # so in RabbitMQ
    "max-length": _whole("maximum length"),
    "max-length-bytes": _whole("maximum length in bytes"),
    "message-ttl": _whole("message TTL"),
    "overflow": _one_of("overflow value", *OVERFLOW_MODES),
    "queue-leader-locator": _one_of(
        "queue leader locator value", "client-local", "balanced", "random", "least-leaders"
    ),
    "queue-master-locator": _master_locator,
    "queue-mode": _one_of("queue-mode value", "default", "lazy"),
    "queue-version": _one_of("queue-version value", 1, 2),
    "stream-filter-size-bytes": _whole("filter size. Valid range is 16-255", 16, 255),
    "stream-max-segment-size-bytes": _whole("segment size", most=_SEGMENT_BYTES_MAX),
    "target-group-size": _whole("target count"),
}

KEYS = frozenset((*_CHECKS, *_HA_KEYS))
"""All that a policy may set."""


def fault_of(definition: Mapping[str, object], *, operator: bool) -> str | None:
    """What is wrong with a policy's definition, or an operator policy's, in RabbitMQ's words; None: nothing."""
    if not definition:
        return "no policy provided"
    known = LIMITS if operator else KEYS
    for key in sorted(definition.keys() & known):
        check = _CHECKS.get(key)
        fault = check(definition[key]) if check is not None else None
        if fault is not None:
            return fault
    fault = _mirroring_fault({key: value for key, value in definition.items() if key in _HA_KEYS})
    if fault is not None and not operator:
        return fault
    unknown = sorted(definition.keys() - known)
    if unknown:
        terms = ",".join(f"{{{shown(key)},{shown(definition[key])}}}" for key in unknown)
        return f"[{terms}] are not recognised policy settings"
    return None


def _mirroring_fault(given: Mapping[str, object]) -> str | None:
    if not given:
        return None
    mode, params = given.get("ha-mode"), given.get("ha-params")
    if "ha-mode" not in given:
        return "ha-mode must be specified to specify ha-params, ha-sync-mode or ha-promote-on-shutdown"
    if mode == "all":
        if "ha-params" in given:
            return 'ha-mode="all" does not take parameters'
    elif mode == "exactly":
        if not _integer(params, 1):
            return f'ha-mode="exactly" takes an integer, {shown(params) if "ha-params" in given else "none"} given'
    elif mode == "nodes":
        if not isinstance(params, list):
            return f'ha-mode="nodes" takes a list, {shown(params) if "ha-params" in given else "none"} given'
        if not params:
            return 'ha-mode="nodes" list must be non-empty'
        if wrong := [each for each in params if not isinstance(each, str)]:
            return f'ha-mode="nodes" takes a list of strings, {shown(wrong)} was not a string'
    else:
        return f"{shown(mode)} is not a valid ha-mode value"
    sync, batch = given.get("ha-sync-mode", "manual"), given.get("ha-sync-batch-size", 1)
    if sync not in ("automatic", "manual"):
        return f'ha-sync-mode must be "manual" or "automatic", got {shown(sync)}'
    if not _integer(batch, 1):
        return f"ha-sync-batch-size takes an integer greater than 0, {shown(batch)} given"
    for key in ("ha-promote-on-shutdown", "ha-promote-on-failure"):
        if given.get(key, "always") not in ("always", "when-synced"):
            return f'{key} must be "always" or "when-synced", got {shown(given[key])}'
    return None
