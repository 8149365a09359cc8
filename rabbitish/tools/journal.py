"""The commands `rabbitish journal ...`: they look into a journal, and rescue one, while no broker runs on it.

store/ does the work and returns objects; here they become lines for people, or JSON. Exit code 0: the journal is sound
(a torn tail is nothing bad); 1: it is damaged, or could not be read or written; 2: there is nothing that could be
looked at (no journal, a broker is running on it).
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from rabbitish.session.content import WireCodec
    from rabbitish.store.files import RealDisk
    from rabbitish.store.inspect import Entry
    from rabbitish.store.record import Type
    from rabbitish.store.salvage import Salvaged
    from rabbitish.store.verify import Verified

EXIT_DAMAGED = 1
EXIT_UNUSABLE = 2
_PROPERTIES_KNOWN = 4096

directory_argument = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
"""Where the journal is."""


@click.group()
def journal() -> None:
    """Look into the journal in a data directory, or rescue a damaged one."""


@journal.command()
@directory_argument
def verify(directory: Path) -> None:
    """Read everything in the journal in DIR and tell of all that is damaged. Changes nothing.

    No broker may be running on it. Exit code 0: it is sound, or has no more than a torn tail; 1: it is damaged.
    """
    from rabbitish.store import verify as store

    disk = _locked(directory)
    try:
        verified = store.verify(disk, _codec())
    except OSError as error:
        _fail(f"{directory} cannot be read: {error}", EXIT_DAMAGED)
    finally:
        disk.close()
    _show_verified(verified)
    sys.exit(EXIT_DAMAGED if verified.damage else 0)


@journal.command()
@directory_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with everything.")
@click.option("--bodies", is_flag=True, help="With the messages' bodies.")
@click.option("--queue", metavar="NAME", help="Only what is about the queues of this name.")
@click.option("--type", "type_name", metavar="TYPE", help="Only records of this type: publish, remove, queue-new ...")
@click.option("--from", "first_lsn", metavar="LSN", type=click.IntRange(0), default=0, help="Only from this record on.")
@click.option("--limit", metavar="N", type=click.IntRange(0), help="At most so many records.")
def inspect(
    directory: Path,
    *,
    as_json: bool,
    bodies: bool,
    queue: str | None,
    type_name: str | None,
    first_lsn: int,
    limit: int | None,
) -> None:
    """Print what stands in the journal in DIR, record by record, up to the first that is damaged. Changes nothing.

    A broker may be running on it; what that writes or deletes meanwhile may be missing.
    """
    from rabbitish.store import inspect as store
    from rabbitish.store.files import RealDisk
    from rabbitish.store.resync import Place
    from rabbitish.tools import words

    _must_have_journal(directory)
    wanted = store.Wanted(queue, _type_of(type_name), first_lsn, limit, bodies)
    show = _show_json if as_json else _Lines().show
    codec = _codec()
    disk = RealDisk(directory, exclusive=False)
    stopped: Place | None = None
    try:
        for found in store.inspect(disk, codec, wanted):
            if isinstance(found, Place):
                stopped = found
            else:
                show(found)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        _fail(f"{directory} cannot be read: {error}", EXIT_DAMAGED)
    finally:
        disk.close()
    if stopped is not None and stopped.torn:
        click.echo(f"rabbitish: a torn tail: {words.place(stopped)}", err=True)
    elif stopped is not None:
        _fail(f"stopped at damage: {words.place(stopped)}", EXIT_DAMAGED)


@journal.command()
@directory_argument
@click.argument("new_directory", metavar="NEW_DIR", type=click.Path(path_type=Path))
def salvage(directory: Path, new_directory: Path) -> None:
    """Write everything that can be read of the journal in DIR to a new one in NEW_DIR, and tell what is lost.

    NEW_DIR must be empty, or not there yet. No broker may be running on DIR, in which nothing is changed.
    """
    from rabbitish.store import salvage as store
    from rabbitish.store.access_file import Unsure, copy_roster
    from rabbitish.store.files import RealDisk
    from rabbitish.store.verify import verify as verify_journal

    if new_directory.exists() and not _is_empty(new_directory):
        _fail(f"{new_directory} is there already, and not an empty directory", EXIT_UNUSABLE)
    disk = _locked(directory)
    try:
        to = RealDisk(new_directory)
        try:
            salvaged = store.salvage(disk, to, _codec())
            copy_roster(disk, to)
            sound = not verify_journal(to, _codec()).damage
        finally:
            to.close()
    except store.NothingToSalvage as error:
        _fail(f"nothing can be read of {directory}: {error}", EXIT_DAMAGED)
    except (OSError, Unsure) as error:
        _fail(f"{directory} could not be salvaged: {error}; {new_directory} is of no use", EXIT_DAMAGED)
    finally:
        disk.close()
    if not sound:
        _fail(f"{new_directory} does not hold what was written there; its disk may be broken", EXIT_DAMAGED)
    _show_salvaged(salvaged, new_directory)


# ---- opening


def _codec() -> WireCodec:
    from rabbitish.session.content import PropertyCache, WireCodec

    return WireCodec(PropertyCache(_PROPERTIES_KNOWN))


def _must_have_journal(directory: Path) -> None:
    from rabbitish.store.record import parse_segment_name

    try:
        found = any(parse_segment_name(entry.name) is not None for entry in directory.iterdir())
    except OSError as error:
        _fail(f"{directory} cannot be read: {error.strerror}", EXIT_UNUSABLE)
    if not found:
        _fail(f"there is no journal in {directory}", EXIT_UNUSABLE)


def _is_empty(directory: Path) -> bool:
    """Whether nothing is in it, but for the lock of an earlier try."""
    return directory.is_dir() and {entry.name for entry in directory.iterdir()} <= {"lock"}


def _type_of(name: str | None) -> Type | None:
    from rabbitish.tools import words

    if name is None:
        return None
    kind = words.TYPES.get(name.lower().replace("_", "-"))
    if kind is None:
        raise click.BadParameter(f"{name!r} is none of {', '.join(words.TYPES)}.", param_hint="--type")
    return kind


def _locked(directory: Path) -> RealDisk:
    """The data directory, which no broker uses until it is closed."""
    from rabbitish.store.files import DataDirInUse, RealDisk

    _must_have_journal(directory)
    try:
        return RealDisk(directory)
    except DataDirInUse:
        _fail(f"{directory} is in use by a running broker, or by another of these commands; stop it", EXIT_UNUSABLE)
    except OSError as error:
        if error.errno == errno.EROFS:  # then nobody can be writing to it
            return RealDisk(directory, exclusive=False)
        _fail(f"{directory} cannot be locked: {error.strerror}", EXIT_UNUSABLE)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"rabbitish: {message}", err=True)
    sys.exit(code)


# ---- printing


def _show_json(entry: Entry) -> None:
    from rabbitish.tools import words

    click.echo(words.as_json(entry))


class _Lines:
    """Records as lines, with the file's name where it changes."""

    def __init__(self) -> None:
        self._file = ""

    def show(self, entry: Entry) -> None:
        """The next record."""
        from rabbitish.tools import words

        if entry.file != self._file:
            self._file = entry.file
            click.echo(self._file)
        for line in words.as_lines(entry):
            click.echo(line)


def _show_verified(verified: Verified) -> None:
    from rabbitish.tools import words

    for segment in verified.segments:
        live = f"{100 * segment.live_bytes // max(1, segment.bytes)}% of it still queued"
        records = words.counted(segment.records, "record")
        messages = words.counted(segment.messages, "message")
        click.echo(f"{segment.file}: {segment.bytes:,} bytes, {records}, {messages}, {live}")
    for found in verified.damage:
        click.echo(f"damaged: {words.place(found)}")
    if verified.torn:
        click.echo(f"torn tail: {words.place(verified.torn[0])}")
        click.echo("  a write was cut short; nothing in it was confirmed, and the next start cuts it off")
    for note in verified.notes:
        click.echo(f"note: {note}")
    state = f"damaged in {words.counted(len(verified.damage), 'place')}" if verified.damage else "sound"
    queues, messages = words.counted(verified.queues, "queue"), words.counted(verified.messages, "message")
    click.echo(f"{state}: {queues}, {messages} in them, up to record {verified.last_lsn} of epoch {verified.epoch}")


def _show_salvaged(salvaged: Salvaged, new_directory: Path) -> None:
    from rabbitish.tools import words

    for loss in salvaged.lost:
        for line in words.lost(loss, salvaged.names):
            click.echo(line)
    if salvaged.torn:
        click.echo(f"torn tail: {words.place(salvaged.torn[0])}")
        click.echo("  a write was cut short; nothing in it was confirmed")
    for made_up in salvaged.made_up:
        why = "which messages were sent to" if made_up.by_name else "since not even its name is known"
        name = words.quoted(made_up.queue.name)
        click.echo(f"queue number {made_up.queue.number}: its declaration is lost; it is now {name}, {why}")
    for bound in salvaged.unbound:
        click.echo(f"left out, since one of the two is not declared any more: {words.lost_binding(bound)}")
    if not salvaged.certain:
        click.echo("what was declared in lost records may be missing, and what was deleted in them may be back")
    if salvaged.again:
        back = (f"{count:,} of {words.queue_name(salvaged.names[queue])}" for queue, count in salvaged.again.items())
        click.echo(f"so many messages at most may be back that had left their queues: {words.some(back)}")
    if salvaged.left_over:
        click.echo(f"not read, since newer files stand for them: {', '.join(salvaged.left_over)}")
    if not salvaged.lost:
        click.echo("nothing is lost")
    queues, messages = words.counted(salvaged.queues, "queue"), words.counted(salvaged.messages, "message")
    click.echo(f"{new_directory}: {queues}, {messages} in them; it was read back, and is sound")
