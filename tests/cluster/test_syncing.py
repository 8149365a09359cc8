"""A member's disk does not wait for threads that are at something else, such as names that are looked up."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import trio
import trio.testing

from rabbitish.cluster.etcd import Etcd
from rabbitish.cluster.member import Member
from rabbitish.cluster.membership import Names
from rabbitish.cluster.protocol.log import Ticket
from rabbitish.cluster.protocol.timing import Timing
from rabbitish.server.part import Part

from .journaled import SharedDisk, opened


class Told:
    """What the replica hears."""

    leading = None

    def __init__(self) -> None:
        self.event = trio.Event()

    def synced(self, ticket: Ticket, now: int) -> None:
        self.event.set()


@pytest.mark.parametrize("kind", [Member, Part])
def test_the_disk_is_synced_though_all_threads_are_taken(kind: type[Member]) -> None:
    disk = SharedDisk()
    log = opened(disk)
    log.note_epoch(1)

    async def main() -> None:
        etcd = Etcd([("127.0.0.1", 1)])
        member = kind("a", "u1", "main", log, etcd, Names("c"), b"", Timing())
        told = member.replica = Told()  # type: ignore[assignment]
        release = threading.Event()
        limiter = trio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 2
        async with trio.open_nursery() as nursery:
            member._nursery = nursery
            try:
                for _ in range(2):
                    nursery.start_soon(partial(trio.to_thread.run_sync, release.wait))
                await trio.testing.wait_all_tasks_blocked()
                assert not limiter.available_tokens
                member.sync(log.begin_sync())
                with trio.fail_after(2):
                    await told.event.wait()
            finally:
                release.set()

    trio.run(main)
