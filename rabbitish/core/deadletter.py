"""What is written on a message that dies, and where it must not go again.

Follows RabbitMQ 3.10 (rabbit_dead_letter) to the order of keys in a fresh x-death entry, since clients and test suites
look at it: one entry per (queue, reason), newest first, counting; x-first-death-* never change, x-last-death-* (of
newer servers) always do. Pure functions over header tables; routing the result is the virtual host's.
"""

from __future__ import annotations

from rabbitish.core.leaving import REJECTED
from rabbitish.core.message import Address, Message
from rabbitish.values import Int64, Table, Timestamp, Value

_COUNT_MAX = (1 << 63) - 1  # a count may come from a publisher who made it up


def dead_letter(
    message: Message,
    queue: str,
    reason: str,
    exchange: str,
    routing_key: str | None,
    now: int,
    *,
    counted: bool = False,
) -> Message:
    """The message as it goes to the dead-letter exchange `exchange`, under `routing_key` or else its own keys.

    A queue that has `counted` how often the message came back keeps that to itself (RabbitMQ's quorum queues do).
    """
    headers = dict(message.headers())
    if counted:
        headers.pop("x-delivery-count", None)
    death = _death(message, headers, queue, reason, now)
    _record(headers, death)
    if routing_key is None:
        address = Address(exchange, message.address.routing_key, message.address.extra_keys)
    else:
        headers.pop("CC", None)
        address = Address(exchange, routing_key)
    # RabbitMQ keeps a table that it writes to in order of its keys.
    return message.derived(address, dict(sorted(headers.items())), keep_expiration=False)


def _death(message: Message, headers: Table, queue: str, reason: str, now: int) -> Table:
    carbon_copies = headers.get("CC")
    keys: list[Value] = [message.address.routing_key]
    if isinstance(carbon_copies, list):
        keys += [key for key in carbon_copies if isinstance(key, str)]
    death: Table = {
        "count": Int64(1),
        "reason": reason,
        "queue": queue,
        "time": Timestamp(now // 1000),
        "exchange": message.address.exchange,
        "routing-keys": keys,
    }
    expiration = message.expiration()
    if expiration is not None:
        death["original-expiration"] = expiration
    return death


def _record(headers: Table, death: Table) -> None:
    """Add a death to the headers, or count it up where one of the same queue and reason is there."""
    for key in ("reason", "queue", "exchange"):
        headers[f"x-last-death-{key}"] = death[key]
    before = headers.get("x-death")
    deaths: list[Table] = []
    if not isinstance(before, list):
        if "x-death" not in headers:
            for key in ("reason", "queue", "exchange"):
                headers[f"x-first-death-{key}"] = death[key]
    else:
        deaths = _folded(before)
        same = [entry for entry in deaths if _key(entry) == _key(death)]
        if same:
            count = same[0].get("count")
            grown: Table = {**same[0], "count": Int64(min(count + 1, _COUNT_MAX) if isinstance(count, int) else 1)}
            deaths = [entry for entry in deaths if entry is not same[0]]
            death = grown
        death = dict(sorted(death.items()))
    headers["x-death"] = [death, *deaths]


def _key(death: Table) -> tuple[Value, Value]:
    return death.get("queue"), death.get("reason")


def _folded(deaths: list[Value]) -> list[Table]:
    """Entries of the same queue and reason folded into the first, which counts them if it does not count yet."""
    first: dict[tuple[str, str], Table] = {}
    times: dict[tuple[str, str], int] = {}
    for death in deaths:
        if isinstance(death, dict):
            key = (str(death.get("queue")), str(death.get("reason")))
            first.setdefault(key, death)
            times[key] = times.get(key, 0) + 1
    return [death if "count" in death else {"count": Int64(times[key]), **death} for key, death in first.items()]


def is_cycle(headers: Table, queue: str, reason: str) -> bool:
    """Whether a message with these headers, dead for `reason`, returns to `queue` with no rejection since it died
    there.

    Only such fully automatic cycles are cut (RabbitMQ: rabbit_dead_letter:is_cycle).
    """
    deaths = headers.get("x-death")
    if reason == REJECTED or not isinstance(deaths, list):
        return False
    for death in deaths:
        if not isinstance(death, dict) or death.get("reason") == REJECTED:
            return False
        if death.get("queue") == queue:
            return True
    return False
