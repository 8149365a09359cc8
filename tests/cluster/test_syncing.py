"""A member's disk waits for nothing else: for no turn of the event loop, and for no threads that look up names.

And whoever closes its files waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from queue import Queue

import pytest
import trio
import trio.testing

from rabbitish.cluster.disk_thread import DiskThread
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


def test_the_disk_begins_though_the_event_loop_is_busy() -> None:
    async def main() -> None:
        begun, outcomes = threading.Event(), list[OSError | None]()
        disk = DiskThread()
        disk.start(begun.set, outcomes.append)
        assert begun.wait(20), "nothing else has had a turn"
        assert outcomes == []
        await disk.idle()
        assert outcomes == [None]

    trio.run(main)


@pytest.mark.parametrize("soon", [True, False])
def test_who_waits_for_the_disk_hears_once_how_it_ended(soon: bool) -> None:
    async def main() -> None:
        release, calls, outcomes = threading.Event(), Queue[Callable[[], None]](), list[OSError | None]()
        failure = OSError("the disk is gone")

        def work() -> None:
            release.wait(20)
            raise failure

        disk = DiskThread()
        disk.start(work, outcomes.append, calls.put)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(disk.idle)
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks, "it is still at work"
            release.set()
            if soon:
                calls.get(timeout=20)()
                assert outcomes == [failure]
        assert outcomes == [failure]
        await disk.idle()
        if not soon:
            calls.get(timeout=20)()
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes == [failure]

    trio.run(main)


def test_a_bug_is_no_failure_of_the_disk() -> None:
    def work() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        calls = Queue[Callable[[], None]]()
        disk = DiskThread()
        disk.start(work, lambda failure: None, calls.put)
        with pytest.raises(ZeroDivisionError):
            calls.get(timeout=20)()
        await disk.idle()

    trio.run(main)
