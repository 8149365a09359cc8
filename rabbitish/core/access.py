"""Who may log in, and to which virtual host.

Holds users by name with their tags; knows no SASL (session/handshake.py) and keeps nothing on disk. Permissions on
resources, stored users and password hashes are not here yet: whoever is let in may do everything.
"""

from __future__ import annotations

import hmac


class User:
    """Somebody who has logged in."""

    __slots__ = ("name", "tags")

    def __init__(self, name: str, tags: frozenset[str]) -> None:
        self.name = name
        self.tags = tags


class Access:
    """The users of a broker. `loopback_only` names those that may log in only from this machine."""

    def __init__(self, loopback_only: frozenset[str]) -> None:
        self._loopback_only = loopback_only
        self._users: dict[str, tuple[User, bytes]] = {}

    def add_user(self, name: str, password: str, tags: frozenset[str]) -> None:
        """Add or replace a user."""
        self._users[name] = (User(name, tags), password.encode())

    def login(self, name: str, password: bytes, *, loopback: bool) -> User | None:
        """The user, or None when name or password are wrong, or the user may not come from there.

        An empty password never logs in, as with RabbitMQ.
        """
        user, expected = self._users.get(name, (None, b""))
        matches = hmac.compare_digest(expected, password)
        if user is None or not matches or not password:
            return None
        return self.named(name, loopback=loopback)

    def named(self, name: str, *, loopback: bool) -> User | None:
        """The user of that name, when somebody has proved in another way to be it.

        None: there is none, or it may not come from there.
        """
        user, _ = self._users.get(name, (None, b""))
        return None if name in self._loopback_only and not loopback else user
