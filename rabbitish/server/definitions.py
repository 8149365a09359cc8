"""Definitions into a running broker and out of it, by pieces, with everybody else served between two of them.

An import is looked at as a whole before anything of it is done; from then on nothing can refuse it. First users,
virtual hosts, permissions and policies are written and hold, all at once, then exchanges, queues and bindings are made.
A process that ends in the middle has made some of them, and the same import again makes the rest, since what is there
already is left as it is. Other changes of users and virtual hosts wait meanwhile; clients do not.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import trio

from rabbitish import __version__
from rabbitish.core.access.fields import printable
from rabbitish.core.access.passwords import Hashed
from rabbitish.core.access.records import AccessError
from rabbitish.core.access.roster import Roster
from rabbitish.core.definitions import decode, export
from rabbitish.core.definitions.access import passwords, read_access
from rabbitish.core.definitions.decode import SECTIONS, Document
from rabbitish.core.definitions.topology import Topology, make, read_topology
from rabbitish.server.keeper import JournalError

if TYPE_CHECKING:
    from rabbitish.server.node import Node

T = TypeVar("T")

# Everybody else gets a turn after this long.
_SLICE_SECONDS = 0.001
_NOTES_SHOWN = 20


class DefinitionsError(JournalError):
    """The definitions that a broker was to start with cannot be imported; the message says why, for people."""


@dataclass
class Imported:
    """What an import did: how many objects the file had, how many exchanges, queues and bindings were new."""

    objects: dict[str, int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


async def load_definitions(node: Node, path: Path) -> None:
    """Import the definitions that a broker starts with. DefinitionsError: they cannot be."""
    try:
        data = await trio.to_thread.run_sync(_read, path, node.settings.definitions_max_bytes)
        imported = await import_definitions(node, "start", data)
    except OSError as error:
        raise DefinitionsError(f"cannot read the definitions in {path}: {error.strerror or error}") from error
    except AccessError as error:
        raise DefinitionsError(f"cannot use the definitions in {path}: {error}") from error
    for note in imported.notes[:_NOTES_SHOWN]:
        node.log.warning("definitions", note=note)
    if len(imported.notes) > _NOTES_SHOWN:
        node.log.warning("definitions", more_notes=len(imported.notes) - _NOTES_SHOWN)


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise AccessError(f"it has more than {most} bytes (definitions_max_bytes)")
    return data


async def import_definitions(node: Node, actor: str, data: bytes, vhost: str | None = None) -> Imported:
    """Import a file, or (with `vhost`) a file of one virtual host into that one.

    AccessError: it cannot be, and nothing has changed.
    """
    imported = Imported()
    topology = Topology()
    fields: dict[str, object] = {"vhost": vhost} if vhost is not None else {}

    async def prepare(draft: Roster) -> None:
        nonlocal topology
        if vhost is not None and vhost not in draft.vhosts:
            raise AccessError(f'Please create virtual host "{printable(vhost)}" prior to importing definitions.')
        document = await _by_pieces(node, decode.read(data))
        hashes = await _hash_all(node, draft, document)
        imported.notes += await _by_pieces(node, read_access(document, draft, hashes, vhost))
        topology = await _by_pieces(node, read_topology(document, draft, node.broker, vhost))
        imported.notes += topology.notes
        counts = {name: len(document.section(name)) for name in SECTIONS}
        imported.objects = {name: count for name, count in counts.items() if count}
        fields.update(imported.objects)

    async def follow() -> None:
        imported.made = await _by_pieces(node, make(topology, node.broker, node.now), pump=True)

    await node.registrar.revise(actor, "definitions imported", prepare, follow, fields)
    return imported


async def export_definitions(node: Node, vhost: str | None = None) -> bytes:
    """The definitions of everything, or of one virtual host. AccessError: there is no such virtual host."""
    roster = node.hub.access.roster
    if vhost is not None:
        roster.vhost(vhost)
    header = export.Header(node.settings.product_version, "rabbitish", __version__)
    text: list[str] = []

    def collect() -> Generator[None, None, None]:
        for piece in export.write(roster, node.broker, header, vhost):
            text.append(piece)
            yield

    await _by_pieces(node, collect())
    return "".join(text).encode()


async def _by_pieces(node: Node, work: Generator[None, None, T], *, pump: bool = False) -> T:
    """Do work that stops often enough; `pump`: it changes something that others must hear of."""
    until = time.perf_counter() + _SLICE_SECONDS
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        if time.perf_counter() > until:
            if pump:
                if node.over:
                    raise AccessError("not all of it was made: another node leads by now")
                node.pump(node.now())
            await trio.lowlevel.checkpoint()
            until = time.perf_counter() + _SLICE_SECONDS


async def _hash_all(node: Node, roster: Roster, document: Document) -> dict[str, Hashed]:
    """Hashes of the passwords in a file; of one that has not changed, the hash that there is."""
    hashes: dict[str, Hashed] = {}

    async def hash_one(name: str, password: bytes) -> None:
        known = roster.users[name].password if name in roster.users else None
        if known is not None and await node.registrar.matches_in_thread(known, password):
            hashes[name] = known
        else:
            hashes[name] = await node.registrar.hash_in_thread(password)

    found = passwords(document)
    async with trio.open_nursery() as nursery:
        for name, password in found.items():
            nursery.start_soon(hash_one, name, password)
    return hashes
