"""A node's log that is damaged: it is never taken for one that is whole, wherever setting it aside was cut short.

And a node that is left out while it runs, by itself: what it says, and when it joins again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from rabbitish.cluster.etcd import Etcd, Range, Unknown, put
from rabbitish.cluster.membership import Names
from rabbitish.cluster.protocol.disk_open import open_log
from rabbitish.cluster.protocol.state import GroupState, View, decode_state
from rabbitish.server.cluster_place import JOURNAL
from rabbitish.server.joining import open_records, stay_in
from rabbitish.server.keeper import JournalError
from rabbitish.server.log import Log
from rabbitish.store.files import RealDisk
from rabbitish.store.record import Type
from tests.cluster.etcd_server import EtcdCluster, served
from tests.cluster.journaled import synced
from tests.cluster.memory_log import record

SEGMENT_BYTES = 4_000


def damaged(path: Path) -> None:
    """A log of two segments, the first of which is damaged."""
    disk = RealDisk(path)
    log = open_log(disk, lambda: "old", segment_bytes=SEGMENT_BYTES)
    log.note_epoch(1)
    log.append(record(1, 1, Type.EPOCH))
    log.append(record(2, 1, Type.VHOST_NEW, b"\0\0\0\1v\0\0\0\0"))
    log.seal()
    log._begin_next()
    log.append(record(3, 1, Type.VHOST_NEW, b"\0\0\0\1w\0\0\0\0"))
    synced(log)
    log.close()
    disk.close()
    first = min(path.glob("journal-*"))
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)


def test_a_damaged_log_that_was_set_aside_in_part_is_not_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, log = Path.rename, Log(logging.getLogger("test"), {})
    for done in count():
        path = tmp_path / str(done)
        damaged(path)
        files = len(list(path.glob("journal-*"))) + 1
        moved: list[str] = []

        def fails(old: Path, new: Path, done: int = done, moved: list[str] = moved) -> Path:
            if new.parent.name.startswith("damaged"):
                if len(moved) == done:
                    raise OSError("the test ends it here")
                moved.append(old.name)
            return rename(old, new)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", fails)
            # what else is in the folder comes in any order: here the log's own identity last
            names = RealDisk.names
            patch.setattr(RealDisk, "names", lambda disk, names=names: sorted(names(disk)))
            disk = RealDisk(path)
            try:
                assert open_records(disk, disk, SEGMENT_BYTES, log).storage != "old"
            except JournalError:
                assert len(moved) == done < files
            disk.close()
        assert not done or moved[0] == "replica.json"
        if len(moved) < done:
            assert done == files + 1
            break
        disk = RealDisk(path)
        try:
            assert open_records(disk, disk, SEGMENT_BYTES, log).storage != "old"
        except JournalError as refused:
            assert 0 < done < files, refused
        disk.close()


# --- Left out while it runs -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    yield from served(tmp_path_factory.mktemp("etcd"))


class Forgetful(Etcd):
    """It does not answer so many times."""

    away = 0

    async def range(self, key: bytes, *, prefix: bool = False, serializable: bool = False) -> Range:
        if self.away:
            self.away -= 1
            raise Unknown("away")
        return await super().range(key, prefix=prefix, serializable=serializable)


class LeftOut:
    """Node b in epoch 7, with etcd and what is in its log; each `sees` is a view, after which it has done what it does.

    Between two views it waits for news, so nothing is ever missed or awaited for nothing.
    """

    def __init__(self, etcd: Forgetful, cluster: str, caplog: pytest.LogCaptureFixture) -> None:
        self.etcd, self.names, self.caplog = etcd, Names(cluster), caplog
        self.replica: Any = SimpleNamespace(me="b#b1", view=None, running=True, leading=None)
        self._waits, self._news = trio.Event(), trio.Event()

    async def run(self) -> None:
        records: Any = SimpleNamespace(epoch=7)
        log = Log(logging.getLogger("test"), {})
        await stay_in(self.replica, self.etcd, self.names, records, log, self._for_news)

    async def _for_news(self) -> None:
        self._waits.set()
        await self._news.wait()
        self._news = trio.Event()

    async def sees(self, *replicas: str, epoch: int = 7) -> list[str]:
        """What etcd has is that, and b is told; who is there afterwards."""
        await self._waits.wait()
        state = GroupState(epoch, "a#a1", ("a#a1",), replicas, "n")
        done = await self.etcd.txn([], [put(self.names.journal(JOURNAL), state.encode())])
        self.replica.view = View(state, done.revision, frozenset(), done.revision)
        await self.told()
        (found,) = (await self.etcd.range(self.names.journal(JOURNAL))).kvs
        return list(decode_state(found.value).replicas)

    async def told(self) -> None:
        await self._waits.wait()
        self._waits = trio.Event()
        self._news.set()
        await self._waits.wait()

    def said(self) -> list[str]:
        """The levels of what was logged since the last time."""
        levels = [record.levelname for record in self.caplog.records]
        self.caplog.clear()
        return levels


def play(
    server: EtcdCluster, cluster: str, caplog: pytest.LogCaptureFixture, scene: Callable[[LeftOut], Awaitable[None]]
) -> None:
    async def main() -> None:
        b = LeftOut(Forgetful(server.endpoints), cluster, caplog)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.run)
            with trio.fail_after(10):
                await scene(b)
            nursery.cancel_scope.cancel()
        await b.etcd.aclose()

    trio.run(main)


def test_who_is_left_out_while_it_runs_says_so_and_joins_again(
    server: EtcdCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(b: LeftOut) -> None:
        await b.told()  # nothing is known yet
        assert await b.sees("a#a1", "b#b1") == ["a#a1", "b#b1"]
        assert await b.sees("a#a1", "b#b0") == ["a#a1", "b#b0"]  # which is for the leader to put right
        assert b.said() == []
        assert await b.sees("a#a1") == ["a#a1", "b#b1"]
        await b.told()  # the same view again
        assert b.said() == ["WARNING"]
        assert await b.sees("a#a1", "b#b1") == ["a#a1", "b#b1"]
        b.etcd.away = 1
        assert await b.sees("c#c1", "a#a1") == ["c#c1", "a#a1", "b#b1"]
        assert b.said() == ["WARNING"]
        b.replica.leading = object()
        assert await b.sees("a#a1") == ["a#a1"]
        b.replica.leading, b.replica.running = None, False
        assert await b.sees("a#a1") == ["a#a1"]
        assert b.said() == []

    play(server, "left-out", caplog, scene)


def test_who_may_not_join_again_says_why_once(server: EtcdCluster, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(b: LeftOut) -> None:
        assert await b.sees("a#a1", epoch=5) == ["a#a1"]
        reason = caplog.records[-1].__dict__["fields"]["reason"]
        assert "in etcd is in epoch 5, and the data directory has seen epoch 7" in reason
        assert b.said() == ["WARNING", "ERROR"]
        assert await b.sees("a#a1", "c#c1", epoch=5) == ["a#a1", "c#c1"]
        assert b.said() == []
        assert await b.sees("a#a1", "c#b1") == ["a#a1", "c#b1"]
        assert b.said() == ["ERROR"]  # another reason
        assert await b.sees("a#a1") == ["a#a1", "b#b1"]

    play(server, "refused", caplog, scene)
