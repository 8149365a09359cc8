"""Users, permissions and virtual hosts on disk: one small file beside the journal, replaced as a whole.

The new file is written and synced under another name and then takes the old one's: whenever the process ends, there is
the old one or the new one, and never half of either. The journal would hold them too, but these change rarely, are read
before everything else, and people must be able to look into them when nothing runs.
"""

from __future__ import annotations

import json

from rabbitish.core.access.document import from_document, to_document
from rabbitish.core.access.records import AccessError
from rabbitish.core.access.roster import Roster
from rabbitish.store.files import Disk

ACCESS_FILE = "access.json"
_NEW = f"{ACCESS_FILE}.new"


class AccessDamaged(Exception):
    """The file is there and cannot be used; the text says why."""


class Unsure(Exception):
    """The new file may or may not have taken the place of the old one."""


def read_roster(disk: Disk) -> Roster | None:
    """What the file says; None: there is none. AccessDamaged: it cannot be used. OSError: it cannot be read."""
    if ACCESS_FILE not in disk.names():
        return None
    try:
        return from_document(json.loads(disk.read(ACCESS_FILE)))
    except (ValueError, RecursionError, AccessError) as error:
        raise AccessDamaged(f"{ACCESS_FILE} cannot be used: {error}") from error


def write_roster(disk: Disk, roster: Roster) -> None:
    """Replace the file; it is safe when this returns. OSError: nothing has changed. Unsure: something may have."""
    _write(disk, json.dumps(to_document(roster), indent=1).encode())


def copy_roster(disk: Disk, to: Disk) -> bool:
    """Have the file on another disk too, as it is, damaged or not; False: there is none."""
    if ACCESS_FILE not in disk.names():
        return False
    _write(to, disk.read(ACCESS_FILE))
    return True


def _write(disk: Disk, data: bytes) -> None:
    if _NEW in disk.names():
        disk.unlink(_NEW)
    file = disk.create(_NEW)
    try:
        file.write(data)
        file.sync()
    finally:
        file.close()
    try:
        disk.rename(_NEW, ACCESS_FILE)
    except OSError as error:
        raise Unsure(f"{ACCESS_FILE} cannot be replaced: {error}") from error
