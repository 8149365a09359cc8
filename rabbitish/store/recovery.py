"""From a journal back to a broker: what was declared is declared again, what was queued is queued again.

What there was comes from the records, read in order into what they add up to (replay.py), or from the checkpoint that a
clean stop left (checkpoint.py). Either goes through the core's own methods while nobody records: there is no second way
for a queue to come into being or a message to come into it. A message keeps the time of its publish, and the TTL that
its queue had then, so time that passed while the broker was down counts. Most messages stay where they are, on disk,
and only pages that name them are put into the queues.

A journal that is quick to read is read even if there is a checkpoint, so that damage is found before anything is built
on it; but with the checkpoint it is known that nothing can be torn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rabbitish.core.broker import Broker
from rabbitish.core.exchange import Exchange
from rabbitish.core.queue import Queue
from rabbitish.core.sendings import Sendings
from rabbitish.core.vhost import Vhost
from rabbitish.store.ahead import Ahead
from rabbitish.store.bodies import Bound, Codec
from rabbitish.store.checkpoint import Checkpoint, find_checkpoint, forget_checkpoint
from rabbitish.store.columns import Unusable
from rabbitish.store.coordinator import Coordinator
from rabbitish.store.declared import Declared
from rabbitish.store.files import Disk
from rabbitish.store.journal import Journal
from rabbitish.store.lines import Replayed, Source
from rabbitish.store.reader import Reader
from rabbitish.store.record import JournalDamaged
from rabbitish.store.recorder import JournalRecorder
from rabbitish.store.scan import ZEROES, Cut, scan_on, tidy
from rabbitish.store.shelf import JournalShelf
from rabbitish.store.spill import Spill

# A journal up to this size is read at the start whatever the checkpoint says, which takes a moment.
CHECKPOINT_TRUSTED_ABOVE_BYTES = 64 * 1024 * 1024


class Recovered(NamedTuple):
    """What came back."""

    journal: Journal
    recorder: JournalRecorder
    shelf: JournalShelf
    queues: int
    messages: int
    """In all queues together."""
    cut: Cut | None
    checkpointed: bool
    """Whether the records were not read, since a checkpoint said what is in them."""
    doubt: str
    """Why a checkpoint that was there did not count, if so."""
    ahead: int
    """How many segments had been read before."""


def recover(
    disk: Disk,
    broker: Broker,
    codec: Codec,
    coordinator: Coordinator,
    now: int,
    *,
    segment_bytes: int,
    on_failure: Callable[[Exception], None],
    govern: Callable[[bytes], None] | None = None,
    tidied: bool = False,
    ahead: Ahead | None = None,
    checkpoint_trusted_above_bytes: int = CHECKPOINT_TRUSTED_ABOVE_BYTES,
) -> Recovered:
    """Read the journal on `disk` into `broker`, which has nothing yet, and record its changes from now on.

    `on_failure` is told when a message cannot be read back. `govern` is told what the journal says of users and
    policies, if it keeps them (empty: nothing yet), before anything is declared. `tidied`: somebody else looks after
    the files, so that there is nothing to mend and nothing is changed. `ahead` has read a part already, with the same
    codec; it is of no use to anybody else any more. JournalDamaged: the journal cannot be read; nothing in it was
    changed.
    """
    if ahead is None or not ahead.fits(disk):
        ahead = Ahead(codec)
    publishes, read_before = ahead.publishes, len(ahead.scanner.segments)
    source, doubt = _source(disk, ahead, checkpoint_trusted_above_bytes)
    scanned = source.scanned
    if not tidied:
        tidy(disk, scanned)
    elif scanned.cut is not None:
        raise JournalDamaged(scanned.cut.name, scanned.cut.offset, scanned.cut.reason)
    epoch = coordinator.lead(scanned.last_epoch)
    recorder = JournalRecorder(codec, broker.vhosts.values(), source.highest_queue)
    journal = Journal(
        disk,
        source.segments,
        segment_bytes=segment_bytes,
        next_sequence=scanned.last_sequence + 1,
        next_lsn=scanned.last_lsn + 1,
        epoch=epoch,
        snapshot=recorder.snapshot,
    )
    reader = Reader(disk, source.segments, publishes, on_failure)
    spill = Spill(disk, codec, publishes, segment_bytes=segment_bytes, on_failure=on_failure)
    shelf = broker.usage.shelf = JournalShelf(journal, reader, spill)
    if govern is not None:
        recorder.access = source.declared.access
        govern(recorder.access)
    recorder.sendings = Sendings(lambda: max(now, broker.now), source.declared.sent)
    queues = _declare(source.declared, broker, recorder, now)
    for number, queue in queues.items():
        _fill(queue, number, source, reader)
    forget_checkpoint(disk)
    recorder.attach(journal)
    journal.begin()
    broker.record(recorder)
    for vhost in broker.vhosts.values():  # policies may have changed that the journal does not know of
        for queue in vhost.queues.values():
            vhost.governor.note_ttl(queue)
    for queue in queues.values():
        for _ in queue.bury_returned(now):
            pass
    messages = sum(queue.ready for queue in queues.values())
    checkpointed = isinstance(source, Checkpoint)
    return Recovered(journal, recorder, shelf, len(queues), messages, scanned.cut, checkpointed, doubt, read_before)


def _source(disk: Disk, ahead: Ahead, trusted_above: int) -> tuple[Source, str]:
    """What to go on from; and why the checkpoint does not count that is there."""
    codec, checkpoint, doubt = ahead.codec, None, ""
    try:
        checkpoint = find_checkpoint(disk, codec)
    except Unusable as why:
        doubt = str(why)
    if checkpoint is not None and checkpoint.segments.disk_bytes > trusted_above:
        return checkpoint, doubt
    scanned = scan_on(disk, ahead.scanner)
    cut = scanned.cut
    if checkpoint is not None and cut is not None:
        raise JournalDamaged(cut.name, cut.offset, f"{cut.reason}, though it was whole at the last clean stop,")
    if checkpoint is not None:
        for (head, size), known in zip(scanned.segments, checkpoint.segments.all, strict=True):
            if size != known.size:
                raise JournalDamaged(head.name, size, f"{ZEROES} by what was known at the last clean stop,")
    return Replayed(ahead.replay, scanned, codec), doubt


def _declare(all_declared: Declared, broker: Broker, recorder: JournalRecorder, now: int) -> dict[int, Queue]:
    for name in all_declared.vhosts:
        broker.add_vhost(name)
    for exchange in all_declared.exchanges.values():
        broker.add_vhost(exchange.vhost).add_exchange(
            exchange.name,
            exchange.type,
            durable=True,
            auto_delete=exchange.auto_delete,
            internal=exchange.internal,
            arguments=exchange.arguments,
        )
    queues: dict[int, Queue] = {}
    for number, declared in all_declared.queues.items():
        queues[number] = broker.add_vhost(declared.vhost).add_queue(
            declared.name,
            durable=True,
            auto_delete=declared.auto_delete,
            arguments=declared.arguments,
            owner=None,
            now=now,
        )
        recorder.know(queues[number], number)
        queues[number].ttls = declared.ttls
    for bound in all_declared.bindings.values():
        vhost = broker.add_vhost(bound.vhost)
        destination = _destination(vhost, bound)
        if destination is not None and bound.source in vhost.exchanges:
            vhost.bind(bound.source, destination, bound.routing_key, bound.arguments)
    return queues


def _destination(vhost: Vhost, bound: Bound) -> Queue | Exchange | None:
    return vhost.exchanges.get(bound.destination) if bound.to_exchange else vhost.queues.get(bound.destination)


def _fill(queue: Queue, number: int, source: Source, reader: Reader) -> None:
    """Put a queue's messages back."""
    for line in source.lines(number, queue, reader):
        for message, published, returns in line.returned:
            queue.restore(message, published, returns)
        for page in line.pages:
            queue.restore_page(line.lane, page)
    queue.mark()
