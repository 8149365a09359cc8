"""How often somebody has failed to log in lately, and whether that is too often to go on looking at passwords.

Failures are counted three ways: by address and user, which is what a client with an old password does; by address,
which is what guessing users does; by user, which is what guessing from many places does. The last two have ten times
the room, and leave those alone who have logged in as that user from that address before; so has the first, for those.
So neither a misconfigured neighbour behind the same proxy nor a stranger locks anybody out. Failures are forgiven one
by one as time passes.
"""

from __future__ import annotations

_FORGIVE_MS = 1_000  # a failure of one address with one user
_FORGIVE_MANY_MS = 100
_MANY = 10
_MOST_KEYS = 20_000


class Throttle:
    """Counts failures; `most` of one address with one user are looked at, 0: any number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._failed: dict[tuple[str | None, str | None], tuple[int, int]] = {}  # how often, and as of when
        self._welcome: dict[tuple[str | None, str | None], None] = {}

    def refuses(self, address: str, user: str, now: int) -> bool:
        """Whether an attempt is refused unseen."""
        if not self._most:
            return False
        keys = (
            [(address, user)] if (address, user) in self._welcome else [(address, user), (address, None), (None, user)]
        )
        return any(self._count(key, now) >= (self._most * _MANY if self._many(key) else self._most) for key in keys)

    def failed(self, address: str, user: str, now: int) -> None:
        """An attempt was looked at and was wrong."""
        if not self._most:
            return
        for key in ((address, user), (address, None), (None, user)):
            count = self._count(key, now)
            _, since = self._failed.pop(key, (0, now))
            # What has passed of the time until the next is forgiven goes on to count.
            self._failed[key] = count + 1, (now - (now - since) % self._forgive_ms(key)) if count else now
        while len(self._failed) > _MOST_KEYS:
            del self._failed[next(iter(self._failed))]  # the one that was touched longest ago

    def succeeded(self, address: str, user: str) -> None:
        """Somebody logged in."""
        if not self._most:
            return
        self._welcome.pop((address, user), None)
        self._welcome[address, user] = None
        if len(self._welcome) > _MOST_KEYS:
            del self._welcome[next(iter(self._welcome))]

    def _many(self, key: tuple[str | None, str | None]) -> bool:
        return None in key or key in self._welcome

    def _forgive_ms(self, key: tuple[str | None, str | None]) -> int:
        return _FORGIVE_MANY_MS if self._many(key) else _FORGIVE_MS

    def _count(self, key: tuple[str | None, str | None], now: int) -> int:
        count, since = self._failed.get(key, (0, now))
        return max(0, count - (now - since) // self._forgive_ms(key))
