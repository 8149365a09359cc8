"""What is known of each user, permission and virtual host, and the limits that either may have.

Plain values: a change replaces one. Names are what AMQP can carry: UTF-8 of at most 255 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rabbitish.core.access.passwords import Hashed

LONGEST_NAME_BYTES = 255
USER_LIMITS = ("max-connections", "max-channels")
VHOST_LIMITS = ("max-connections", "max-queues")
QUEUE_TYPES = ("classic", "quorum", "stream")


class AccessError(Exception):
    """A change that cannot be made; the text says why, in rabbitmqctl's words where it has any."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may log in. Without a password, only by other means than one (a certificate)."""

    name: str
    tags: frozenset[str]
    password: Hashed | None = None
    max_connections: int | None = None
    max_channels: int | None = None


@dataclass(frozen=True, slots=True)
class VhostRecord:
    """A virtual host's own properties; what is in it is not here."""

    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    default_queue_type: str | None = None
    tracing: bool = False
    max_connections: int | None = None
    max_queues: int | None = None


class Permission(NamedTuple):
    """What a user may do in a virtual host: regular expressions for names, one that is empty for none."""

    configure: str
    write: str
    read: str


class TopicPermission(NamedTuple):
    """Which routing keys a user may use on a topic exchange; {username} and {vhost} in them are replaced."""

    write: str
    read: str


def check_name(what: str, name: str) -> None:
    """AccessError: it cannot be a name."""
    if not name:
        raise AccessError(f"{what} must not be empty")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise AccessError(f"{what} is not valid UTF-8") from None
    if size > LONGEST_NAME_BYTES:
        raise AccessError(f"{what} is longer than {LONGEST_NAME_BYTES} bytes")


def check_depth(value: object, levels: int = 100) -> None:
    """AccessError: it is nested deeper than anybody means, and may be too deep to be written."""
    if not levels:
        raise AccessError("it is nested deeper than 100 levels")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            check_depth(each, levels - 1)


def check_limits(known: tuple[str, ...], limits: dict[str, object]) -> dict[str, int | None]:
    """Limits by our names for them; a negative one is none, as with RabbitMQ. AccessError: they are no such limits."""
    checked: dict[str, int | None] = {}
    for name, value in limits.items():
        if name not in known:
            raise AccessError(f'Unrecognised limit "{name}"; there are {" and ".join(known)}')
        if not isinstance(value, int) or isinstance(value, bool):
            raise AccessError(f"{name} should be an integer, not {value!r}")
        checked[name.replace("-", "_")] = value if value >= 0 else None
    return checked
