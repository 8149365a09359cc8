"""Users, permissions and virtual hosts in a running broker: read at the start, changed one change after the other.

A change is made to a draft, written to disk in a thread, and only then adopted; so what is seen is what a restart will
find. Passwords are hashed and verified in threads as well, a few at a time, and equal ones once: a thousand connections
of one user cost one hash.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from rabbitish.core.access import EVERYTHING
from rabbitish.core.access.logins import Attempt
from rabbitish.core.access.passwords import SALT_BYTES, SCRYPT, Hashed, hash_as_rabbitmq, hash_password, matches
from rabbitish.core.access.records import AccessError, VhostRecord
from rabbitish.core.access.roster import Roster
from rabbitish.core.policing import policies_by_vhost
from rabbitish.server.keeper import JournalError
from rabbitish.server.log import get_log
from rabbitish.server.rosters import Rosters
from rabbitish.store.access_file import Unsure

if TYPE_CHECKING:
    from rabbitish.server.node import Node

# Each hash takes its memory, and a core for as long as it lasts.
_MOST_THREADS = 4


class Registrar:
    """The roster of a node. `failed` is told when it is not known any more what is on disk."""

    def __init__(self, node: Node, failed: Callable[[Exception], None]) -> None:
        self._node = node
        self._failed = failed
        self._log = get_log()
        self._rosters: Rosters | None = None
        self._written = True  # what holds is what is on disk
        self._one_at_a_time = trio.Lock()
        self._threads = trio.CapacityLimiter(min(_MOST_THREADS, os.cpu_count() or 1))
        self._waiting: dict[tuple[str, bytes], list[tuple[Attempt, Callable[[bool, int], None]]]] = {}
        node.hub.verify = self.verify
        if node.settings.password_migration and node.settings.password_hashing_module == SCRYPT:
            node.hub.rehash = self._rehash

    def govern(self, roster: Roster | None) -> None:
        """Have the journal read with the policies that hold."""
        if roster is not None:
            self._node.broker.govern(policies_by_vhost(roster), self._node.now())

    def open(self, rosters: Rosters) -> None:
        """Bring back what is on disk, before anybody may connect; make it at the first start.

        JournalError: it cannot be read, or used.
        """
        roster = rosters.read()
        if roster is None and self._node.settings.load_definitions:
            roster = self._empty()  # not written: without definitions there would be nobody
            self._written = False
        elif roster is None:
            roster = self._first()
            rosters.begin(roster)
        self._rosters = rosters
        self._node.hub.adopt(roster, self._node.now())

    def _empty(self) -> Roster:
        """What there is at first where definitions say what there is: virtual hosts that the journal knows."""
        roster = Roster()
        for vhost in self._node.broker.vhosts:
            roster.add_vhost(VhostRecord(vhost))
        return roster

    def _first(self) -> Roster:
        """What there is at first: the default user, who may do everything in every virtual host there is."""
        settings = self._node.settings
        password = settings.default_pass.encode()
        hashed = self.hashed(password) if password else None
        roster = self._empty()
        roster.add_user(settings.default_user, hashed, ["administrator"])
        for vhost in roster.vhosts:
            roster.set_permissions(settings.default_user, vhost, EVERYTHING)
        if hashed is not None:
            self._node.hub.access.logins.know(roster.users[settings.default_user], password)
        return roster

    # ---- changes

    async def change(self, actor: str, event: str, make: Callable[[Roster], None], **fields: object) -> None:
        """Make a change. AccessError: it cannot be made, and nothing has changed.

        When this returns it is on disk, with everything that followed from it.
        """

        async def prepare(draft: Roster) -> None:
            make(draft)

        await self.revise(actor, event, prepare, None, fields)

    async def revise(
        self,
        actor: str,
        event: str,
        prepare: Callable[[Roster], Awaitable[None]],
        follow: Callable[[], Awaitable[None]] | None,
        fields: dict[str, object],
    ) -> None:
        """The same for a change that takes a while; `follow` is done when it holds, before there is another one."""
        node = self._node
        async with self._one_at_a_time:
            draft = node.hub.access.roster.draft()
            try:
                await prepare(draft)
                # Once it is being written it is carried through, whoever does not want to wait any more.
                with trio.CancelScope(shield=True):
                    await self._write(draft)
                    node.hub.adopt(draft, node.now())
                    if follow is not None:
                        await follow()
            except AccessError as error:
                node.hub.audit(f"{event}: refused", actor=actor, reason=str(error), **fields)
                raise
            self._log.info(event, actor=actor, **fields)
            node.hub.audit(event, actor=actor, **fields)
            node.pump(node.now())
            while node.broker.policing and not node.over:
                await trio.lowlevel.checkpoint()
                node.pump(node.now())
            if node.keeper is not None:
                try:
                    await node.keeper.reached(node.keeper.recovered.recorder.declared)
                except JournalError as error:
                    raise AccessError(f"whether all of it holds is not known: {error}") from error

    async def _write(self, draft: Roster) -> None:
        if self._rosters is None or (self._written and draft.same_as(self._node.hub.access.roster)):
            return
        try:
            await self._rosters.write(draft)
        except OSError as error:
            raise AccessError(f"it cannot be written to disk: {error}") from error
        except Unsure as error:
            self._failed(error)
            raise AccessError(f"{error}; the broker stops") from error
        self._written = True

    # ---- passwords

    def hashed(self, password: bytes) -> Hashed:
        """The hash that a new password gets; slow."""
        settings, salt = self._node.settings, secrets.token_bytes(SALT_BYTES)
        if settings.password_hashing_module != SCRYPT:
            return hash_as_rabbitmq(password, salt, settings.password_hashing_module)
        return hash_password(password, salt, settings.password_cost)

    async def hash_in_thread(self, password: bytes) -> Hashed:
        """The same, while others go on."""
        return await trio.to_thread.run_sync(self.hashed, password, limiter=self._threads)

    async def matches_in_thread(self, hashed: Hashed, password: bytes) -> bool:
        """Whether this is the password, while others go on."""
        return await trio.to_thread.run_sync(matches, hashed, password, limiter=self._threads)

    def verify(self, attempt: Attempt, done: Callable[[bool, int], None]) -> None:
        """Verify a password in a thread, and call back; see Hub."""
        waiting = self._waiting.setdefault(attempt.key, [])
        waiting.append((attempt, done))
        if len(waiting) == 1:
            self._node.nursery.start_soon(self._verify, attempt)

    async def _verify(self, attempt: Attempt) -> None:
        waiting = self._waiting[attempt.key]

        def work() -> bool:
            return not all(each.abandoned for each, _ in waiting) and attempt.verify()

        right = await trio.to_thread.run_sync(work, limiter=self._threads)
        now = self._node.now()
        for each, done in self._waiting.pop(attempt.key):
            # Somebody who came while the user's hash changed waits for another answer than the first.
            done(right if each.hashed == attempt.hashed else each.verify(), now)
        self._node.pump(now)

    def _rehash(self, attempt: Attempt) -> None:
        """A password was right for a hash that is not ours."""
        self._node.nursery.start_soon(self._migrate, attempt)

    async def _migrate(self, attempt: Attempt) -> None:
        hashed = await self.hash_in_thread(attempt.password())
        logins = self._node.hub.access.logins

        def make(roster: Roster) -> None:
            if roster.user(attempt.name).password != attempt.hashed:
                raise AccessError("it has another password by now")
            roster.set_password(attempt.name, hashed)

        try:
            await self.change("login", "password hashed anew", make, user=attempt.name)
        except AccessError as error:
            self._log.warning("a password was not hashed anew", user=attempt.name, error=error)
        else:
            logins.know(self._node.hub.access.roster.users[attempt.name], attempt.password())
