"""Logging in: which attempts are answered at once, which need a slow hash first, and what is remembered of them.

Every connection logs in, and our hashes are slow on purpose. So a password that was found right is remembered as a
digest, keyed with a secret of this process, for as long as the user's hash stays the same; whoever brings it again is
let in at once. Any other password is looked at as long as the throttle allows. An attempt with the name of nobody costs
as much as one with a wrong password, and both are refused in the same words: names cannot be found out.
"""

from __future__ import annotations

import hashlib
import hmac

from rabbitish.core.access.passwords import SALT_BYTES, Hashed, hash_password, matches
from rabbitish.core.access.records import LONGEST_NAME_BYTES, User
from rabbitish.core.access.roster import Roster
from rabbitish.core.access.throttle import Throttle

_LEAST_COST = 4


class Attempt:
    """A login by password. While `hashed` is not None somebody must call `verify`, in a thread if that is `slow`."""

    __slots__ = ("_digest", "_password", "abandoned", "address", "hashed", "loopback", "name", "reason", "right")

    def __init__(self, name: str, password: bytes, digest: bytes, address: str, *, loopback: bool) -> None:
        self.name = name
        self.address = address
        self.loopback = loopback
        self.hashed: Hashed | None = None
        self.right = False
        self.reason = ""  # of a refusal, for the log
        self.abandoned = False  # nobody waits for the answer any more
        self._password = password
        self._digest = digest

    @property
    def slow(self) -> bool:
        """Whether verifying takes long."""
        return self.hashed is not None and self.hashed.slow

    @property
    def key(self) -> tuple[str, bytes]:
        """The same for attempts with the same name and password."""
        return self.name, self._digest

    def verify(self) -> bool:
        """Whether the password is right; from any thread."""
        return self.hashed is not None and matches(self.hashed, self._password)

    def password(self) -> bytes:
        """The password, for who must hash it anew."""
        return self._password

    def digest(self) -> bytes:
        """What is remembered of a right password."""
        return self._digest


class Logins:
    """Attempts and what they add up to. `key` is secret and random; `cost` that of our hashes."""

    def __init__(self, loopback_only: frozenset[str], throttle: Throttle, *, key: bytes, cost: int) -> None:
        self._loopback_only = loopback_only
        self._throttle = throttle
        self._key = key
        self._right: dict[str, tuple[Hashed, bytes]] = {}  # digests of right passwords, and the hashes that said so
        # What the passwords of nobody are compared with: as slow as any, and never right.
        self._nobody = hash_password(key, key[:SALT_BYTES].ljust(SALT_BYTES), _LEAST_COST)
        self._nobody = Hashed(self._nobody.algorithm, bytes((cost,)) + self._nobody.value[1:])

    def attempt(self, roster: Roster, name: str, password: bytes, address: str, now: int, *, loopback: bool) -> Attempt:
        """Begin a login; `conclude` it at once, or when it is verified."""
        digest = hashlib.blake2b(password, key=self._key, digest_size=32).digest()
        attempt = Attempt(name, password, digest, address, loopback=loopback)
        if not password:
            attempt.reason = "empty password"
        elif self._throttle.refuses(address, name[:LONGEST_NAME_BYTES], now):
            attempt.reason = "too many failures lately"
        else:
            user = roster.users.get(name)
            hashed = user.password if user is not None else None
            known, expected = self._right.get(name, (None, b""))
            if hashed is not None and known == hashed and hmac.compare_digest(expected, digest):
                attempt.right = True
            else:
                attempt.hashed = hashed or self._nobody
        return attempt

    def conclude(self, roster: Roster, attempt: Attempt, now: int) -> User | None:
        """Who it is; None, and `attempt.reason`: it is refused."""
        user = roster.users.get(attempt.name)
        name = attempt.name[:LONGEST_NAME_BYTES]
        if attempt.right and user is not None and attempt.hashed in (None, user.password):
            if attempt.hashed is not None:
                self._right[user.name] = attempt.hashed, attempt.digest()
            self._throttle.succeeded(attempt.address, name)
            return self.admitted(user, attempt)
        if attempt.hashed is not None:
            self._throttle.failed(attempt.address, name, now)
            attempt.reason = "wrong name or password"
        return None

    def admitted(self, user: User, attempt: Attempt) -> User | None:
        """The user, unless one of those that may only come from this machine comes from another."""
        if user.name in self._loopback_only and not attempt.loopback:
            attempt.reason = "may only connect from loopback"
            return None
        return user

    def know(self, user: User, password: bytes) -> None:
        """A user's password is known to be right."""
        if user.password is not None:
            digest = hashlib.blake2b(password, key=self._key, digest_size=32).digest()
            self._right[user.name] = user.password, digest

    def forget(self, roster: Roster) -> None:
        """Forget what was right for hashes that are no more."""
        for name, (hashed, _) in list(self._right.items()):
            user = roster.users.get(name)
            if user is None or user.password != hashed:
                del self._right[name]
