"""Where users, permissions and policies are kept: in a file of their own, or in a cluster's journal.

A single node has them in a file, which people can read when nothing runs. A cluster has one place alone for what must
survive, so that no node can know something else than what it leads with: there they are a record of the journal.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol

import trio

from rabbitish.core.access.document import from_document, to_document
from rabbitish.core.access.records import AccessError
from rabbitish.core.access.roster import Roster
from rabbitish.server.keeper import JournalError
from rabbitish.store.access_file import AccessDamaged, Unsure, read_roster, write_roster
from rabbitish.store.files import Disk

if TYPE_CHECKING:
    from rabbitish.server.keeper import Keeper


class Rosters(Protocol):
    """Keeps one roster."""

    def read(self) -> Roster | None:
        """The one that is kept; None: none is yet. JournalError: it cannot be read, or used."""

    def begin(self, roster: Roster) -> None:
        """Keep the first one. JournalError: it cannot be written."""

    async def write(self, roster: Roster) -> None:
        """Keep this one; it is safe when this returns. OSError: nothing has changed. Unsure: something may have."""


class RosterFile:
    """A single node's."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def read(self) -> Roster | None:
        """See Rosters."""
        try:
            return read_roster(self._disk)
        except AccessDamaged as error:
            raise JournalError(str(error)) from error
        except OSError as error:
            raise _cannot(error) from error

    def begin(self, roster: Roster) -> None:
        """See Rosters."""
        try:
            write_roster(self._disk, roster)
        except (OSError, Unsure) as error:
            raise _cannot(error) from error

    async def write(self, roster: Roster) -> None:
        """See Rosters."""
        await trio.to_thread.run_sync(write_roster, self._disk, roster)


class RosterRecord:
    """A cluster's."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def read(self) -> Roster | None:
        """See Rosters."""
        return roster_of(self._keeper.recovered.recorder.access)

    def begin(self, roster: Roster) -> None:
        """See Rosters. Whoever calls this waits until the journal is safe."""
        self._append(roster)

    async def write(self, roster: Roster) -> None:
        """See Rosters. AccessError: another node leads by now, and knows whether it is kept."""
        try:
            await self._keeper.reached(self._append(roster))
        except JournalError as error:
            raise AccessError(f"whether it holds is not known: {error}") from error

    def _append(self, roster: Roster) -> int:
        return self._keeper.recovered.recorder.access_changed(json.dumps(to_document(roster)).encode())


def roster_of(document: bytes) -> Roster | None:
    """What the journal says; None: nothing yet. JournalError: it cannot be used."""
    if not document:
        return None
    try:
        return from_document(json.loads(document))
    except (ValueError, RecursionError, AccessError) as error:
        raise JournalError(f"users and permissions in the journal cannot be used: {error}") from error


def _cannot(error: Exception) -> JournalError:
    return JournalError(f"users and permissions cannot be read or written: {error}")
