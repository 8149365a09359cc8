"""Who may log in, to which virtual host, and what they may do there.

`Access` is what a running broker asks. It holds a `Roster` (users, permissions, virtual hosts) that is replaced as a
whole when anything changes, and what is worked out from it: rights, compiled expressions, passwords known to be right.
Nothing here waits or touches a disk; slow hashes are left to whoever has threads (logins.py).
"""

from __future__ import annotations

from rabbitish.core.access.logins import Attempt, Logins
from rabbitish.core.access.passwords import SALT_BYTES, hash_as_rabbitmq
from rabbitish.core.access.patterns import compiled
from rabbitish.core.access.records import Permission, User, VhostRecord
from rabbitish.core.access.rights import Rights
from rabbitish.core.access.roster import Roster
from rabbitish.core.access.throttle import Throttle

EVERYTHING = Permission(".*", ".*", ".*")


class Access:
    """The users of a broker. `loopback_only` names those that may log in only from this machine.

    `key` is random and secret. `most_failures` of one address with one user are looked at before it must wait, 0: any
    number. `cost` is that of slow hashes.
    """

    def __init__(self, loopback_only: frozenset[str], *, key: bytes, most_failures: int = 0, cost: int = 14) -> None:
        self.roster = Roster()
        self.logins = Logins(loopback_only, Throttle(most_failures), key=key, cost=cost)
        self._rights: dict[tuple[str, str], Rights] = {}

    def adopt(self, roster: Roster) -> None:
        """From now on this holds."""
        self.roster = roster
        self._rights.clear()
        self.logins.forget(roster)

    def attempt(self, name: str, password: bytes, address: str, now: int, *, loopback: bool) -> Attempt:
        """Begin a login (see `Attempt`)."""
        return self.logins.attempt(self.roster, name, password, address, now, loopback=loopback)

    def conclude(self, attempt: Attempt, now: int) -> User | None:
        """Who it is that has logged in, if anybody."""
        return self.logins.conclude(self.roster, attempt, now)

    def named(self, name: str, *, loopback: bool) -> User | None:
        """Somebody who need not show a password: a certificate or the configuration says who it is.

        None: there is no such user, or not from there.
        """
        user = self.roster.users.get(name)
        return user and self.logins.admitted(user, Attempt(name, b"", b"", "", loopback=loopback))

    def rights(self, user: str, vhost: str) -> Rights:
        """What a user may do in a virtual host, as of now."""
        rights = self._rights.get((user, vhost))
        if rights is None:
            roster = self.roster
            topics = {key[2]: value for key, value in roster.topic_permissions.items() if key[:2] == (user, vhost)}
            rights = Rights(user, vhost, roster.permissions.get((user, vhost)), topics, compiled)
            self._rights[user, vhost] = rights
        return rights

    def add_known_user(self, name: str, password: str, tags: frozenset[str], *vhosts: str) -> None:
        """Add a user for whose password nothing need be kept, with all permissions: for brokers without a disk."""
        draft = self.roster.draft()
        draft.users.pop(name, None)
        draft.add_user(name, hash_as_rabbitmq(password.encode(), bytes(SALT_BYTES)) if password else None, tags)
        for vhost in vhosts:
            draft.add_vhost(VhostRecord(vhost))
            draft.set_permissions(name, vhost, EVERYTHING)
        self.adopt(draft)
